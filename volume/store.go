// Package volume keeps volumes: folders that outlive the containers they are
// mounted in.
//
// A volume is a folder below the store's root, named as the volume, with a
// record and the files in "_data". It appears under its name only when it is
// whole, and leaves its name before it is taken apart; what a killed agent
// left of either is removed by New. A volume made with the option "type",
// "device" or "o" is a mount, made on its "_data" when a container is about
// to use it.
//
// What images and containers have is foreign: their paths are resolved by
// openat2 alone, below the root they are in, and nothing of them is executed.
// Errors are of the kinds of containerd/errdefs.
package volume

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/internal/atomicfile"
	"github.com/sirupsen/logrus"
)

const (
	dataName   = "_data"
	recordName = "volume.json"
	// stagePrefix begins the names of folders that belong to no volume.
	stagePrefix = ".stage-"
	// maxRecord bounds a record, in bytes.
	maxRecord = 1 << 20
)

// Driver is the only one there is.
const Driver = "local"

// namePattern is docker's rule for names of volumes.
var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$`)

// Volume is what is known of a volume. It is a copy.
type Volume struct {
	Name      string
	Options   map[string]string `json:",omitempty"`
	Labels    map[string]string `json:",omitempty"`
	CreatedAt time.Time
	// Anonymous volumes go with their container.
	Anonymous bool `json:",omitempty"`
}

// Spec asks for a volume. An empty Name is chosen, and makes it anonymous.
type Spec struct {
	Name            string
	Options, Labels map[string]string
	// Anonymous makes one of the name that NewName gave.
	Anonymous bool
}

// Store keeps volumes below one folder. Its methods are safe for concurrent
// use.
type Store struct {
	root string

	// mu guards the fields below, and is held over renaming and unmounting, which do
	// not wait for the disk.
	mu      sync.Mutex
	volumes map[string]Volume
	// held counts who relies on a volume while no record says so yet.
	held map[string]int
	// mounting are the mounts under way, by name.
	mounting map[string]*attempt

	// mount asks the kernel, and patience is how long that may take.
	mount    func(mountRequest) error
	patience time.Duration
}

// New opens a store at root, which is made when it is missing, and removes
// what is half made or half removed. A volume whose record cannot be read is
// logged, and left alone.
func New(root string) (*Store, error) {
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	// The table of mounts knows paths without links.
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("open volumes: %w", err)
	}
	s := &Store{
		root: root, volumes: map[string]Volume{}, held: map[string]int{}, mounting: map[string]*attempt{}, mount: mountNow, patience: mountPatience,
	}
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), stagePrefix):
			if err := s.discard(filepath.Join(root, e.Name())); err != nil {
				logrus.WithError(err).Warn("remove what is left of a volume")
			}
		case namePattern.MatchString(e.Name()):
			v, err := s.read(e.Name())
			if err != nil {
				logrus.WithError(err).WithField("volume", e.Name()).Warn("volume cannot be read")
				continue
			}
			s.volumes[v.Name] = v
			s.removeStages(e.Name())
		}
	}
	return s, nil
}

// read reads a volume's record.
func (s *Store) read(name string) (Volume, error) {
	data, err := atomicfile.Read(filepath.Join(s.root, name, recordName), maxRecord)
	if err != nil {
		return Volume{}, err
	}
	var v Volume
	if err := json.Unmarshal(data, &v); err != nil {
		return Volume{}, err
	}
	if v.Name != name {
		return Volume{}, fmt.Errorf("record of volume %q is that of %q: %w", name, v.Name, errdefs.ErrDataLoss)
	}
	return v, nil
}

// removeStages removes copies that were not finished.
func (s *Store) removeStages(name string) {
	stages, _ := filepath.Glob(filepath.Join(s.root, name, stagePrefix+"*")) // fails for a bad pattern only
	for _, stage := range stages {
		if err := os.RemoveAll(stage); err != nil {
			logrus.WithError(err).Warn("remove what is left of a copy")
		}
	}
}

// Path is the folder with a volume's files.
func (s *Store) Path(name string) string { return filepath.Join(s.root, name, dataName) }

// Get finds a volume.
func (s *Store) Get(name string) (Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.volumes[name]
	if !ok {
		return Volume{}, fmt.Errorf("volume %s: %w", name, errdefs.ErrNotFound)
	}
	return v.clone(), nil
}

// List gives all volumes by name.
func (s *Store) List() []Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Volume
	for _, name := range slices.Sorted(maps.Keys(s.volumes)) {
		out = append(out, s.volumes[name].clone())
	}
	return out
}

func (v Volume) clone() Volume {
	v.Options, v.Labels = maps.Clone(v.Options), maps.Clone(v.Labels)
	return v
}

// Hold makes a volume, or takes the one of that name, and keeps it as Use does.
// made says that it is new. One of the same name and options is taken as it is, one
// with others is ErrAlreadyExists.
func (s *Store) Hold(spec Spec) (v Volume, made bool, release func(), err error) {
	wanted := Volume{
		Name: spec.Name, Options: maps.Clone(spec.Options), Labels: maps.Clone(spec.Labels), CreatedAt: time.Now().UTC().Round(0),
		Anonymous: spec.Anonymous,
	}
	if wanted.Name == "" {
		wanted.Name, wanted.Anonymous = newName(), true
	}
	if !namePattern.MatchString(wanted.Name) {
		return v, false, nil, fmt.Errorf("create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. "+
			"If you intended to pass a host directory, use absolute path: %w", wanted.Name, wanted.Name, errdefs.ErrInvalidArgument)
	}
	if v, _, release, err = s.take(wanted, ""); err != nil || release != nil {
		return v, false, release, err
	}
	if err := checkOptions(wanted.Options); err != nil {
		return v, false, nil, fmt.Errorf("create %s: %w", wanted.Name, err)
	}
	return s.make(wanted)
}

// Create is Hold for who does not use the volume now.
func (s *Store) Create(spec Spec) (Volume, bool, error) {
	v, made, release, err := s.Hold(spec)
	if err == nil {
		release()
	}
	return v, made, err
}

// take holds the volume there is, or the one that stage becomes; release is nil when
// there is none and stage is empty.
func (s *Store) take(wanted Volume, stage string) (v Volume, made bool, release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.volumes[wanted.Name]
	switch {
	case ok && len(wanted.Options) > 0 && !maps.Equal(wanted.Options, have.Options):
		return v, false, nil, fmt.Errorf("a volume named %s already exists with other options: %w", wanted.Name, errdefs.ErrAlreadyExists)
	case ok:
		return have.clone(), false, s.hold(wanted.Name), nil
	case stage == "":
		return v, false, nil, nil
	}
	if err := os.Rename(stage, filepath.Join(s.root, wanted.Name)); err != nil {
		return v, false, nil, fmt.Errorf("create volume %s: %w", wanted.Name, err)
	}
	s.volumes[wanted.Name] = wanted
	return wanted.clone(), true, s.hold(wanted.Name), nil
}

// hold counts one more who relies on a volume, until release is called; mu is
// held.
func (s *Store) hold(name string) (release func()) {
	s.held[name]++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.held[name]--; s.held[name] == 0 {
			delete(s.held, name)
		}
	})
}

// make puts a volume's folder in place, whole, and durably: what people keep in
// it must be found by its name after a power cut too. Nobody else waits for the disk.
func (s *Store) make(wanted Volume) (v Volume, made bool, release func(), err error) {
	stage, err := s.stage(wanted)
	if err != nil {
		return v, false, nil, fmt.Errorf("create volume %s: %w", wanted.Name, errors.Join(err, os.RemoveAll(stage)))
	}
	if v, made, release, err = s.take(wanted, stage); !made {
		// It failed, or somebody was quicker.
		if failed := os.RemoveAll(stage); failed != nil {
			logrus.WithError(failed).Warn("remove what is left of a volume")
		}
		return v, false, release, err
	}
	if err := atomicfile.SyncDir(s.root); err != nil {
		release()
		return v, false, nil, fmt.Errorf("create volume %s: %w", wanted.Name, err)
	}
	return v, true, release, nil
}

// stage makes a volume's folder in no place as yet; an error may leave it.
func (s *Store) stage(v Volume) (stage string, err error) {
	data, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	if stage, err = os.MkdirTemp(s.root, stagePrefix); err != nil {
		return "", err
	}
	// Containers in a user namespace reach their files through it.
	if err := os.Chmod(stage, 0o711); err != nil {
		return stage, err
	}
	if err := os.Mkdir(filepath.Join(stage, dataName), 0o755); err != nil {
		return stage, err
	}
	return stage, atomicfile.WriteSync(filepath.Join(stage, recordName), data, 0o600)
}

// Remove removes a volume. One that is held, or that used says containers use,
// is ErrFailedPrecondition. used is asked while nobody can begin to hold the
// volume, so that who held it until now has told of it by then; nil is asked
// nothing. It must not call the Store.
func (s *Store) Remove(name string, used func(name string) bool) error {
	s.mu.Lock()
	err := s.removable(name, used)
	gone := ""
	if err == nil {
		gone, err = s.retire(name)
	}
	s.mu.Unlock()
	if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
		return err
	}
	if err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	// Large trees take long, and nobody waits for the name.
	if err := s.discard(gone); err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return nil
}

// removable says why a volume cannot be removed; mu is held.
func (s *Store) removable(name string, used func(name string) bool) error {
	_, ok := s.volumes[name]
	switch {
	case !ok:
		return fmt.Errorf("volume %s: %w", name, errdefs.ErrNotFound)
	case s.held[name] > 0:
		return fmt.Errorf("volume %s is about to be used: %w", name, errdefs.ErrFailedPrecondition)
	case s.mounting[name] != nil:
		return fmt.Errorf("volume %s is being mounted: %w", name, errdefs.ErrFailedPrecondition)
	case used != nil && used(name):
		return fmt.Errorf("volume %s is in use: %w", name, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// retire takes a volume's name away; mu is held.
func (s *Store) retire(name string) (gone string, err error) {
	if err := s.unmount(name); err != nil {
		return "", err
	}
	gone = filepath.Join(s.root, stagePrefix+newName())
	if err := os.Rename(filepath.Join(s.root, name), gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	delete(s.volumes, name)
	return gone, nil
}

// discard removes a folder that belongs to no volume, and never what is
// mounted in it.
func (s *Store) discard(dir string) error {
	if err := unmountAt(filepath.Join(dir, dataName)); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// Size is what a volume's files take on disk, in bytes. It reads them all; those
// on another machine take nothing here.
func (s *Store) Size(ctx context.Context, name string) (int64, error) {
	v, err := s.Get(name)
	if err != nil || isNetworked(v) {
		return 0, err
	}
	return treeSize(ctx, s.Path(name))
}

// newName returns a fresh name of 64 hexadecimal digits.
func newName() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}
