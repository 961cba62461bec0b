package imageservice

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/nodeagent/nodeagent/imageservice/content"
	"github.com/nodeagent/nodeagent/imageservice/registry"
	"github.com/nodeagent/nodeagent/imageservice/unpack"
	"github.com/opencontainers/go-digest"
)

// Config says where images are kept and how they come.
type Config struct {
	// Root is created, private to root, when it is not there.
	Root string
	// CertsDirs hold hosts.toml folders; see registry.Config.
	CertsDirs []string
	// Snapshotter holds the layers of pulls that name no other. It must be a
	// Layers, as must be those of Others.
	Snapshotter snapshots.Snapshotter
	// DefaultName is what Snapshotter is called, and Others are further ones
	// that a pull may name.
	DefaultName string
	Others      map[string]snapshots.Snapshotter
	// StallTimeout ends a connection that brings next to nothing for so long;
	// zero means 10 seconds.
	StallTimeout time.Duration
	// Pinned names images that are never collected: names, and patterns with
	// a star at the end or at both.
	Pinned []string
	// Limits bounds what one layer may hold; zero fields mean defaults.
	Limits unpack.Limits
}

// Store is the local images. Its methods may be called at once from many
// goroutines, except where they say otherwise.
type Store struct {
	cfg      Config
	content  *content.Store
	layers   Layers
	others   map[string]Layers
	registry *registry.Client
	metrics  *metrics

	// ctx ends with Close; running are the goroutines that do.
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	// collectNow wakes the collector.
	collectNow chan struct{}

	// healing has a place for who unpacks a lost layer again.
	healing chan struct{}

	// changing is held while records change, over the writes to the disk;
	// it is taken before mu.
	changing sync.Mutex

	// removing is held while a layer nobody needs is removed, which another
	// program may take its time for, and while a lease is taken on layers;
	// it is taken before mu.
	removing sync.Mutex

	// mu guards what follows. Nothing slower than a rename happens under it.
	mu sync.Mutex
	// images are by ID; names leads from tags and repository digests to IDs.
	images map[string]*record
	names  map[string]string
	// refs counts who needs a blob, and chains who needs a layer: images and
	// leases.
	refs   map[digest.Digest]int
	chains map[digest.Digest]int
	// pulls and jobs are under way, by what they bring.
	pulls map[pullKey]*pull
	jobs  map[layerKey]*job
	seq   uint64
	inUse InUse
	pins  pins
	// observer is told of changes; it may be nil.
	observer func(Change)
}

// New opens the images below a root, drops what was half-made when the last
// process ended, and starts collecting garbage. Close ends that.
func New(cfg Config) (*Store, error) {
	layers, others, err := layersOf(cfg)
	if err != nil {
		return nil, fmt.Errorf("open images: %w", err)
	}
	blobs, err := content.New(content.Config{
		Root:         filepath.Join(cfg.Root, "content"),
		StallTimeout: cfg.StallTimeout,
	})
	if err != nil {
		return nil, fmt.Errorf("open images: %w", err)
	}
	s := &Store{
		cfg:        cfg,
		content:    blobs,
		layers:     layers,
		others:     others,
		registry:   registry.New(registry.Config{CertsDirs: cfg.CertsDirs, HeaderTimeout: cfg.StallTimeout}),
		metrics:    newMetrics(),
		collectNow: make(chan struct{}, 1),
		healing:    make(chan struct{}, 1),
		images:     map[string]*record{},
		names:      map[string]string{},
		refs:       map[digest.Digest]int{},
		chains:     map[digest.Digest]int{},
		pulls:      map[pullKey]*pull{},
		jobs:       map[layerKey]*job{},
	}
	if s.pins, err = parsePins(cfg.Pinned); err != nil {
		blobs.Close()
		return nil, fmt.Errorf("open images: %w", err)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.start(); err != nil {
		s.cancel()
		blobs.Close()
		return nil, fmt.Errorf("open images: %w", err)
	}
	return s, nil
}

func (s *Store) start() error {
	if err := os.MkdirAll(s.recordDir(), 0o700); err != nil {
		return err
	}
	if err := s.load(); err != nil {
		return err
	}
	// Before anybody pulls: a layer that no image refers to may be torn by
	// a power cut, and must not be found again by its chain ID.
	if err := s.dropUnpacking(s.ctx); err != nil {
		return err
	}
	if err := s.demoteBlobs(); err != nil {
		return err
	}
	if err := s.collect(s.ctx); err != nil {
		return err
	}
	s.running.Go(s.collector)
	return nil
}

// Close ends pulls and collecting, and waits for them. The snapshotter is its
// owner's to close.
func (s *Store) Close() error {
	s.mu.Lock()
	s.cancel() // and no pull begins any more
	s.mu.Unlock()
	s.running.Wait()
	return s.content.Close()
}

// SetInUse tells who knows which images containers need. It is called once,
// before images are removed.
func (s *Store) SetInUse(inUse InUse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inUse = inUse
}

// used returns the IDs of images that containers need.
func (s *Store) used() map[string]bool {
	s.mu.Lock()
	inUse := s.inUse
	s.mu.Unlock()
	if inUse == nil {
		return nil
	}
	// Not under our lock: it has its own.
	return inUse.ImagesInUse()
}

func (s *Store) recordDir() string { return filepath.Join(s.cfg.Root, "images") }
