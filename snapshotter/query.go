package snapshotter

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"
)

// Stat answers from memory.
func (o *Overlay) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, err := o.find(key)
	if err != nil {
		return snapshots.Info{}, err
	}
	return copyInfo(s.info), nil
}

// Update changes labels, all of them or those that fieldpaths name
// ("labels.x"). An empty value removes a label that is named.
func (o *Overlay) Update(ctx context.Context, info snapshots.Info, fieldpaths ...string) (snapshots.Info, error) {
	s, err := o.take(info.Name)
	if err != nil {
		return snapshots.Info{}, fmt.Errorf("update: %w", err)
	}
	defer o.release(s)
	// s is busy: nobody else touches it, and it is not changed before the
	// record is.
	changed := *s
	changed.info = copyInfo(s.info)
	if err := applyLabels(&changed.info, info, fieldpaths); err != nil {
		return snapshots.Info{}, fmt.Errorf("update snapshot %s: %w", info.Name, err)
	}
	changed.info.Updated = time.Now().UTC()
	if err := o.write(&changed, s.info.Kind == snapshots.KindCommitted); err != nil {
		return snapshots.Info{}, fmt.Errorf("update snapshot %s: %w", info.Name, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	s.info = changed.info
	return copyInfo(s.info), nil
}

func applyLabels(to *snapshots.Info, from snapshots.Info, fieldpaths []string) error {
	if len(fieldpaths) == 0 {
		to.Labels = maps.Clone(from.Labels)
	}
	for _, path := range fieldpaths {
		if path == "labels" {
			to.Labels = maps.Clone(from.Labels)
			continue
		}
		label, ok := strings.CutPrefix(path, "labels.")
		if !ok {
			return fmt.Errorf("field %q cannot be changed: %w", path, errdefs.ErrInvalidArgument)
		}
		if to.Labels == nil {
			to.Labels = map[string]string{}
		}
		if to.Labels[label] = from.Labels[label]; to.Labels[label] == "" {
			delete(to.Labels, label)
		}
	}
	return nil
}

// Usage answers from memory for a committed snapshot and a view, and walks
// the files of an active one.
func (o *Overlay) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	o.mu.Lock()
	s, err := o.find(key)
	if err != nil {
		o.mu.Unlock()
		return snapshots.Usage{}, err
	}
	kind, usage := s.info.Kind, s.usage
	o.mu.Unlock()
	if kind != snapshots.KindActive {
		return usage, nil
	}
	dir := o.fsDir(s.id)
	if s.unpacking && o.images != nil {
		dir = o.dir(s.id)
	}
	usage, err = diskUsage(ctx, dir)
	if err != nil {
		return snapshots.Usage{}, fmt.Errorf("usage of snapshot %s: %w", key, err)
	}
	return usage, nil
}

// Mounts returns how an active snapshot or a view is mounted, from memory;
// images below it that are not mounted, because of a reboot, are.
func (o *Overlay) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	o.mu.Lock()
	s, err := o.find(key)
	o.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := o.mountLayers(s); err != nil {
		return nil, fmt.Errorf("mounts of snapshot %s: %w", key, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	m, err := o.mounts(s)
	if err != nil {
		return nil, fmt.Errorf("mounts of snapshot %s: %w", key, err)
	}
	return m, nil
}

// mounts is Mounts with mu held.
func (o *Overlay) mounts(s *snapshot) ([]mount.Mount, error) {
	if s.info.Kind == snapshots.KindCommitted {
		return nil, fmt.Errorf("it is committed: %w", errdefs.ErrFailedPrecondition)
	}
	lowers, err := o.lowers(s)
	if err != nil {
		return nil, err
	}
	writable := s.info.Kind == snapshots.KindActive
	if !writable && len(lowers) <= 1 {
		source := o.fsDir(s.id)
		if len(lowers) == 1 {
			source = lowers[0]
		}
		return []mount.Mount{{Type: "bind", Source: source, Options: []string{"ro", "rbind"}}}, nil
	}
	if len(lowers) == 0 {
		return []mount.Mount{{Type: "bind", Source: o.fsDir(s.id), Options: []string{"rw", "rbind"}}}, nil
	}
	options := []string{"index=off"}
	if writable {
		options = append(options, "workdir="+o.dir(s.id)+"/"+workName, "upperdir="+o.fsDir(s.id))
		if s.info.Labels[LabelVolatile] == "true" {
			options = append(options, "volatile")
		}
	}
	options = append(options, "lowerdir="+strings.Join(lowers, ":"))
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: options}}, nil
}

// lowers are the directories of a snapshot's parents, the nearest first. mu
// is held.
func (o *Overlay) lowers(s *snapshot) ([]string, error) {
	if s.info.Parent != "" && s.parent == nil {
		return nil, fmt.Errorf("its parent %s is lost: %w", s.info.Parent, errdefs.ErrFailedPrecondition)
	}
	var dirs []string
	for p := s.parent; p != nil; p = p.parent {
		if p.info.Parent != "" && p.parent == nil {
			return nil, fmt.Errorf("the layer %s below it is lost: %w", p.info.Parent, errdefs.ErrFailedPrecondition)
		}
		dirs = append(dirs, o.layerPath(p))
	}
	return dirs, nil
}

// layerPath is the directory with the files of one snapshot alone, once it is
// mounted if it is an image.
func (o *Overlay) layerPath(s *snapshot) string {
	if s.image {
		return o.images.point(s.id)
	}
	return o.fsDir(s.id)
}

// Walk calls fn for each snapshot that passes one of the filters, ordered by
// name, with no lock held.
func (o *Overlay) Walk(ctx context.Context, fn snapshots.WalkFunc, fs ...string) error {
	filter, err := filters.ParseAll(fs...)
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	for _, info := range o.infos() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !filter.Match(adapt(info)) {
			continue
		}
		if err := fn(ctx, info); err != nil {
			return err
		}
	}
	return nil
}

func (o *Overlay) infos() []snapshots.Info {
	o.mu.Lock()
	defer o.mu.Unlock()
	infos := make([]snapshots.Info, 0, len(o.byName))
	for _, s := range o.byName {
		if !s.busy {
			infos = append(infos, copyInfo(s.info))
		}
	}
	slices.SortFunc(infos, func(a, b snapshots.Info) int { return strings.Compare(a.Name, b.Name) })
	return infos
}

// adapt shows a snapshot to containerd's filter language: kind, name, parent
// and labels.
func adapt(info snapshots.Info) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		if len(path) == 0 {
			return "", false
		}
		switch path[0] {
		case "kind":
			return strings.ToLower(info.Kind.String()), true
		case "name":
			return info.Name, true
		case "parent":
			return info.Parent, true
		case "labels":
			v, ok := info.Labels[strings.Join(path[1:], ".")]
			return v, ok
		}
		return "", false
	})
}

func copyInfo(info snapshots.Info) snapshots.Info {
	info.Labels = maps.Clone(info.Labels)
	return info
}
