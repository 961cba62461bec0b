package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
)

// LabelSnapshotter at Prepare and View names the member of a Set; nothing
// means its default one.
const LabelSnapshotter = "nodeagent/snapshotter"

// Set is several snapshotters in which each container's snapshot has a name of
// its own: who looks for one need not know which has it.
type Set struct {
	usual   snapshots.Snapshotter
	members map[string]snapshots.Snapshotter

	mu sync.Mutex
	// where has the snapshots that are not in the usual one, committed ones
	// aside.
	where map[string]string
}

// NewSet joins a usual snapshotter and others that are called by name. One of
// them that does not answer has no snapshots until it does.
func NewSet(ctx context.Context, usual snapshots.Snapshotter, members map[string]snapshots.Snapshotter) *Set {
	s := &Set{usual: usual, members: members, where: map[string]string{}}
	for name, member := range members {
		err := member.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
			if info.Kind != snapshots.KindCommitted {
				s.where[info.Name] = name
			}
			return nil
		})
		if err != nil {
			logrus.WithError(err).WithField("snapshotter", name).Warn("cannot list its snapshots")
		}
	}
	return s
}

// of is the member that has a snapshot.
func (s *Set) of(key string) snapshots.Snapshotter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if member, ok := s.members[s.where[key]]; ok {
		return member
	}
	return s.usual
}

// choose takes the label with the member's name from options.
func (s *Set) choose(opts []snapshots.Opt) (string, snapshots.Snapshotter, []snapshots.Opt, error) {
	var info snapshots.Info
	for _, opt := range opts {
		if err := opt(&info); err != nil {
			return "", nil, nil, err
		}
	}
	name := info.Labels[LabelSnapshotter]
	if name == "" {
		return "", s.usual, opts, nil
	}
	member, ok := s.members[name]
	if !ok {
		return "", nil, nil, fmt.Errorf("there is no snapshotter %q: %w", name, errdefs.ErrInvalidArgument)
	}
	labels := maps.Clone(info.Labels)
	delete(labels, LabelSnapshotter)
	return name, member, []snapshots.Opt{snapshots.WithLabels(labels)}, nil
}

// Prepare makes a writable snapshot in the member that the label names.
func (s *Set) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	name, member, opts, err := s.choose(opts)
	if err != nil {
		return nil, fmt.Errorf("prepare snapshot %s: %w", key, err)
	}
	m, err := member.Prepare(ctx, key, parent, opts...)
	s.note(name, key, err)
	return m, err
}

// View makes a read-only one.
func (s *Set) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	name, member, opts, err := s.choose(opts)
	if err != nil {
		return nil, fmt.Errorf("view snapshot %s: %w", key, err)
	}
	m, err := member.View(ctx, key, parent, opts...)
	s.note(name, key, err)
	return m, err
}

// note remembers which member has a snapshot.
func (s *Set) note(name, key string, err error) {
	if err != nil || name == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.where[key] = name
}

// Mounts returns how a snapshot is mounted.
func (s *Set) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	return s.of(key).Mounts(ctx, key)
}

// Remove removes a snapshot.
func (s *Set) Remove(ctx context.Context, key string) error {
	err := s.of(key).Remove(ctx, key)
	if err == nil || errdefs.IsNotFound(err) {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.where, key)
	}
	return err
}

// Usage is what a snapshot's own files take.
func (s *Set) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	return s.of(key).Usage(ctx, key)
}

// Stat tells of a snapshot of a container; those of images may be in several
// members.
func (s *Set) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	return s.of(key).Stat(ctx, key)
}

// Walk calls fn for the snapshots of all members. That some do not answer is
// told when the others are done.
func (s *Set) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	errs := []error{s.usual.Walk(ctx, fn, filters...)}
	for _, name := range slices.Sorted(maps.Keys(s.members)) {
		if err := s.members[name].Walk(ctx, fn, filters...); err != nil {
			errs = append(errs, fmt.Errorf("snapshotter %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// LayerDirs are the directories of an active snapshot or view and of the
// layers below it, the uppermost first, in overlayfs' upper format.
func (s *Set) LayerDirs(key string) ([]string, error) {
	switch member := s.of(key).(type) {
	case *Overlay:
		return member.layerDirs(key)
	default:
		mounts, err := member.Mounts(context.Background(), key)
		if err != nil {
			return nil, fmt.Errorf("layers of snapshot %s: %w", key, err)
		}
		upper, lowers, err := Dirs(mounts)
		if err != nil {
			return nil, fmt.Errorf("layers of snapshot %s: %w", key, err)
		}
		return append([]string{upper}, lowers...), nil
	}
}

// Dirs are the directory that is written to through the mounts of an active
// snapshot, and those of the layers below it, the nearest first. Mounts that
// are neither an overlay nor a bind fail with ErrNotImplemented.
func Dirs(mounts []mount.Mount) (upper string, lowers []string, err error) {
	if len(mounts) != 1 {
		return "", nil, fmt.Errorf("%d mounts: %w", len(mounts), errdefs.ErrNotImplemented)
	}
	m := mounts[0]
	o, err := parseOptions(m.Options)
	if err != nil {
		return "", nil, err
	}
	switch m.Type {
	case "bind":
		return m.Source, nil, nil
	case "overlay":
		for _, opt := range o.other {
			if dir, ok := strings.CutPrefix(opt, "upperdir="); ok {
				return dir, o.lowers, nil
			}
		}
		return "", nil, fmt.Errorf("an overlay that is not writable: %w", errdefs.ErrInvalidArgument)
	}
	return "", nil, fmt.Errorf("a mount of type %s: %w", m.Type, errdefs.ErrNotImplemented)
}

func (o *Overlay) layerDirs(key string) ([]string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, err := o.find(key)
	if err != nil {
		return nil, err
	}
	lowers, err := o.lowers(s)
	if err != nil {
		return nil, fmt.Errorf("layers of snapshot %s: %w", key, err)
	}
	return append([]string{o.layerPath(s)}, lowers...), nil
}
