// Package nodeapi serves the node API (api/node/v1): what a person at the
// node needs and CRI does not have. It is what nodectl talks to.
//
// A container of nodectl is a pod with one container in it, owned by
// sandbox.OwnerNodectl, which CRI does not list. What CRI's messages cannot
// say of it (the name of the image as typed, whether it removes itself, how
// long stop waits) is kept as one JSON annotation of the pod, so that it
// outlives the agent with the pod's record. Its log, hosts file and seccomp
// profile lie in a folder of its own.
//
// Handlers return errors of the kinds of containerd/errdefs; the interceptor
// of package cri turns them into gRPC codes and logs them. Errors about a
// person's mistake are worded as docker words them.
package nodeapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/imageservice"
	"github.com/nodeagent/nodeagent/imageservice/registry"
	"github.com/nodeagent/nodeagent/internal/recorder"
	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/nodeapi/doctor"
	"github.com/nodeagent/nodeagent/nodeapi/eventlog"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/nodeagent/nodeagent/sandbox/spec"
	"github.com/nodeagent/nodeagent/supervisor"
	"github.com/nodeagent/nodeagent/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Sandboxes is what the node API needs of pods and containers; package
// sandbox has it.
type Sandboxes interface {
	RunPod(ctx context.Context, req sandbox.RunPodRequest) (string, error)
	StopPod(ctx context.Context, podID string) error
	RemovePod(ctx context.Context, podID string) error
	RevivePod(ctx context.Context, podID string) error
	SetNetworks(podID string, networks *network.Membership) error
	Pod(podID string) (sandbox.Pod, error)
	Pods() []sandbox.Pod

	CreateContainer(ctx context.Context, req sandbox.CreateContainerRequest) (string, error)
	StartContainer(ctx context.Context, containerID string, attach *sandbox.IO) (*sandbox.Attachment, error)
	StopContainer(ctx context.Context, containerID string, timeout time.Duration) error
	RemoveContainer(ctx context.Context, containerID string) error
	Container(containerID string) (sandbox.Container, error)
	Containers() []sandbox.Container
	WaitContainer(ctx context.Context, containerID string) (sandbox.Container, error)
	KillContainer(ctx context.Context, containerID string, signal string) error
	PauseContainer(ctx context.Context, containerID string) error
	ResumeContainer(ctx context.Context, containerID string) error
	RenameContainer(ctx context.Context, containerID, name string) error
	ReopenLog(ctx context.Context, containerID string) error
	UpdateContainerLimits(ctx context.Context, containerID string, res *runtime.LinuxContainerResources, extra *spec.Extra) error
	Processes(containerID string) ([]int, error)
	OOMKilled(containerID string) bool
	ContainerDetail(ctx context.Context, containerID string) (*sandbox.ContainerDetail, error)
	// CDIDevices are the names of the host's devices of that interface.
	CDIDevices() ([]string, error)
	// OpenRootfs opens what the container sees; paths in it are resolved by
	// openat2 only.
	OpenRootfs(ctx context.Context, containerID string) (*os.File, error)
	// ChangeRootfs opens it for writing while the container does not run.
	ChangeRootfs(ctx context.Context, containerID string, change func(root *os.File) error) error
	PodDetail(ctx context.Context, podID string) (*sandbox.PodDetail, error)

	Exec(ctx context.Context, req sandbox.ExecRequest) (int, error)
	Attach(ctx context.Context, containerID string, streams sandbox.IO) error
	Subscribe() (<-chan sandbox.Event, func())
}

// Images is what the node API needs of images; package imageservice has it.
type Images interface {
	ImageMover
	Pull(ctx context.Context, req imageservice.PullRequest) (imageservice.PullResult, error)
	Image(ctx context.Context, ref string) (imageservice.Image, error)
	// Configuration is an image's as it was pulled.
	Configuration(ctx context.Context, id string) ([]byte, error)
	// ManifestOf describes an image's manifest.
	ManifestOf(ctx context.Context, id string) (ocispec.Descriptor, error)
	Images(ctx context.Context) ([]imageservice.Image, error)
	Untag(ctx context.Context, ref string, force bool) (untagged, deleted []string, err error)
	// Remove removes an image with all its names; what containers need of it
	// stays until they are gone.
	Remove(ctx context.Context, ref string) error
	Tag(ctx context.Context, ref, newRef string) error
	FilesystemUsage(ctx context.Context) (imageservice.FilesystemUsage, error)
	Pulls() []imageservice.PullUnderWay
	Explain(ctx context.Context, ref string, auth imageservice.Auth) (string, registry.Explanation, error)
	Verify(ctx context.Context, opts imageservice.VerifyOptions) (imageservice.Verified, error)
	DiskUsage(ctx context.Context) (imageservice.DiskUsage, error)
	// Observe has a function called after each change of an image.
	Observe(f func(imageservice.Change))
}

// ImageMover brings images from, and to, registries, archives and containers.
type ImageMover interface {
	Push(ctx context.Context, req imageservice.PushRequest) (imageservice.PushResult, error)
	Save(ctx context.Context, to io.Writer, refs []string, platform string) error
	Load(ctx context.Context, r io.Reader, platform string) ([]imageservice.Loaded, error)
	ImportRoot(ctx context.Context, r io.Reader, req imageservice.ImportRequest) (imageservice.Image, error)
	ImportURL(ctx context.Context, url string, req imageservice.ImportRequest) (imageservice.Image, error)
	Commit(ctx context.Context, req imageservice.CommitRequest) (imageservice.Image, error)
	History(ctx context.Context, ref string) (imageservice.Image, []imageservice.Step, error)
	Prune(ctx context.Context, all bool, wanted func(imageservice.Image) bool) ([]imageservice.Pruned, int64, error)
	Login(ctx context.Context, auth imageservice.Auth) (identityToken string, err error)
	Search(ctx context.Context, term string, limit int, auth imageservice.Auth) ([]imageservice.Found, error)
	Tags(ctx context.Context, repository string, auth imageservice.Auth) ([]string, error)
}

// Layers finds the files of a container's own layer and those of its image;
// package snapshotter has it.
type Layers interface {
	// LayerDirs are the folders of a snapshot's own files and of the layers
	// below it, the uppermost first, in overlayfs' upper format.
	LayerDirs(key string) ([]string, error)
	// ChainUsage is what a snapshot takes on disk, by itself and with those
	// below it, in bytes.
	ChainUsage(ctx context.Context, key string) (own, all int64, err error)
}

// Supervisor tells of the node's supervisor; supervisor.Client has it.
type Supervisor interface {
	Info(ctx context.Context) (supervisor.Info, error)
}

// Cgroups tells whether cgroups have one of the files of a controller, by their
// names on v1 and on v2; cgroups.Manager has it.
type Cgroups interface {
	Has(controller string, v1, v2 []string) bool
}

// Network tells whether pods can be given a network; nil means yes.
type Network interface {
	Status(ctx context.Context) error
}

// Config says where the node API keeps its files, and what Version and Info
// repeat of the agent's configuration.
type Config struct {
	// Root is a durable folder of the node API's own, such as
	// /var/lib/nodeagent/nodectl; State one on tmpfs. Both are made when
	// missing.
	Root, State string
	// Volumes is the folder that volumes are kept in.
	Volumes string
	// Events is a file on tmpfs that events are kept in for the next agent;
	// empty keeps them in memory alone.
	Events string
	// AgentRoot and AgentState are the agent's folders, told by Info.
	AgentRoot, AgentState string
	// Version and GitCommit are the agent's build.
	Version, GitCommit string
	// Snapshotter, CgroupDriver and CgroupVersion are told by Info.
	Snapshotter, CgroupDriver, CgroupVersion string
	// Swap says that the kernel counts what cgroups have swapped out.
	Swap bool
	// RecursiveReadOnly says that the kernel has recursive read-only mounts.
	RecursiveReadOnly bool
	// Warnings are told by Info, such as of a feature the kernel lacks.
	Warnings []string
}

// Deps is what the server is built from. Supervisor and Network may be nil:
// Info then says nothing of them.
type Deps struct {
	Config     Config
	Sandboxes  Sandboxes
	Images     Images
	Layers     Layers
	Supervisor Supervisor
	Network    Network
	// Networks are people's. They begin to answer names in New.
	Networks PeopleNetworks
	// Recorder, Operations and Calls are what Debug tells of; each may be nil.
	Recorder   *recorder.Recorder
	Operations Operations
	Calls      Calls
	// Host is what Doctor looks at.
	Host doctor.Host
	// Cgroups tells what can be limited; nil means everything.
	Cgroups Cgroups
}

// Server serves the node API. Close ends it.
type Server struct {
	config     Config
	sandboxes  Sandboxes
	images     Images
	layers     Layers
	supervisor Supervisor
	network    Network
	networks   PeopleNetworks
	recorder   *recorder.Recorder
	operations Operations
	calls      Calls
	host       doctor.Host
	cgroups    Cgroups
	normals    normals
	files      files
	volumes    *volume.Store
	log        eventlog.Log

	// life ends with Close; background counts what must end before Close
	// returns.
	life       context.Context
	end        context.CancelFunc
	background sync.WaitGroup
	removals   singleflight.Group

	// stillMu guards still, which counts who holds a container still.
	stillMu sync.Mutex
	still   map[string]int

	// telling is held while a start or an end is told of, so that who tells
	// what follows it comes later. It is taken before mu.
	telling sync.Mutex

	mu sync.Mutex
	// closed refuses new background work; guarded by mu, as all below.
	closed bool
	// names are those of containers being made.
	names map[string]bool
	// ports are published ones of containers being made.
	ports map[publishedPort]bool
	// users are the user namespaces of containers being made.
	users map[*runtime.UserNamespace]bool
	// specs holds decoded annotations by pod ID.
	specs map[string]*nodev1.ContainerSpec
	// leaving are the removals that nobody waits for yet, with their begins.
	leaving map[chan struct{}]time.Time
	// holds counts who waits for a container's exit code: it removes
	// itself only after them.
	holds map[string]int
	// execs are the processes that run in containers beside their own.
	execs map[string][]string
	// keeps is what is remembered of containers by ID.
	keeps map[string]*keep
	// records is held while the record of a container's run is changed;
	// runsMu guards those read, by the keys of their folders, and is the
	// last one taken.
	records, runsMu sync.Mutex
	runs            map[string]runRecord
	// bootID names this boot of the machine.
	bootID string
	// started is when this server was made.
	started time.Time
	// ofPod finds nodectl's container of a pod: IDs by IDs.
	ofPod sync.Map
}

// New builds the server, gives back what an earlier agent left of containers
// half made, and begins to remove those that remove themselves. The caller
// calls Close.
func New(deps Deps) (*Server, error) {
	if deps.Sandboxes == nil || deps.Images == nil || deps.Layers == nil || deps.Networks == nil {
		return nil, errors.New("node API: pods, images, layers and networks are needed")
	}
	life, end := context.WithCancel(context.Background())
	s := &Server{
		config: deps.Config, sandboxes: deps.Sandboxes, images: deps.Images,
		layers: deps.Layers, supervisor: deps.Supervisor, network: deps.Network,
		recorder: deps.Recorder, operations: deps.Operations, calls: deps.Calls, host: deps.Host, cgroups: deps.Cgroups,
		networks: deps.Networks, started: time.Now(),
		files: files{root: deps.Config.Root, state: deps.Config.State},
		life:  life, end: end,
		names: map[string]bool{}, ports: map[publishedPort]bool{}, users: map[*runtime.UserNamespace]bool{},
		specs: map[string]*nodev1.ContainerSpec{}, leaving: map[chan struct{}]time.Time{}, holds: map[string]int{},
		execs: map[string][]string{}, keeps: map[string]*keep{}, still: map[string]int{}, runs: map[string]runRecord{}, bootID: bootID(),
	}
	var err error
	if s.volumes, err = volume.New(deps.Config.Volumes); err != nil {
		end()
		return nil, fmt.Errorf("node API: %w", err)
	}
	keys := map[string]bool{holdsDir: true}
	for _, pod := range s.sandboxes.Pods() {
		if pod.Owner == sandbox.OwnerNodectl {
			keys[podKey(pod)] = true
		}
	}
	if err := s.files.prepare(keys); err != nil {
		end()
		return nil, fmt.Errorf("node API: %w", err)
	}
	held, err := s.files.held()
	if err != nil {
		end()
		return nil, fmt.Errorf("node API: %w", err)
	}
	if deps.Config.Events != "" {
		if err := s.log.Keep(deps.Config.Events); err != nil {
			logrus.WithError(err).Warn("the next agent will know of no events of this one")
		}
	}
	s.images.Observe(s.emitImage)
	s.networks.Serve(s.namesOf)
	s.recordMemberships()
	if err := s.removeLeft(); err != nil {
		s.Close()
		return nil, fmt.Errorf("node API: %w", err)
	}
	s.goBackground(func(ctx context.Context) { s.letGoHeld(ctx, held) })
	s.goBackground(s.upkeep)
	s.goBackground(s.rotateLogs)
	return s, nil
}

// Register adds the node API's services to a gRPC server that does not serve
// yet.
func (s *Server) Register(server *grpc.Server) {
	nodev1.RegisterContainersServer(server, &containers{Server: s})
	nodev1.RegisterImagesServer(server, &images{Server: s})
	nodev1.RegisterSystemServer(server, &system{Server: s})
	nodev1.RegisterNetworksServer(server, &peopleNetworks{Server: s})
	nodev1.RegisterVolumesServer(server, &volumes{Server: s})
	nodev1.RegisterEventsServer(server, &events{Server: s})
	nodev1.RegisterRegistriesServer(server, &registries{Server: s})
	nodev1.RegisterDebugServer(server, &debug{Server: s})
	nodev1.RegisterStoreServer(server, &store{Server: s})
}

// Close stops what runs in the background and waits for it. Containers go
// on; a removal that was cut is finished by the next New. It may be called
// more than once.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	s.background.Wait()
	if err := s.log.Close(); err != nil {
		logrus.WithError(err).Warn("close the file of events")
	}
}

// goBackground runs work until it returns, at the latest soon after Close,
// which waits for it. It returns false after Close.
func (s *Server) goBackground(work func(ctx context.Context)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.background.Add(1)
	go func() {
		defer s.background.Done()
		work(s.life)
	}()
	return true
}

// bound returns a context that ends with ctx or with the server's life.
func (s *Server) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.life, cancel)
	return ctx, func() { stop(); cancel() }
}

// The services are types of their own because they share method names.
type (
	containers struct {
		nodev1.UnimplementedContainersServer
		*Server
	}
	images struct {
		nodev1.UnimplementedImagesServer
		*Server
	}
	system struct {
		nodev1.UnimplementedSystemServer
		*Server
	}
	peopleNetworks struct {
		nodev1.UnimplementedNetworksServer
		*Server
	}
	debug struct {
		nodev1.UnimplementedDebugServer
		*Server
	}
	volumes struct {
		nodev1.UnimplementedVolumesServer
		*Server
	}
	events struct {
		nodev1.UnimplementedEventsServer
		*Server
	}
)
