package imageservice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// Image finds an image from memory; see Service.
func (s *Store) Image(ctx context.Context, ref string) (Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(ref)
	if err != nil {
		return Image{}, err
	}
	return r.image(), nil
}

// Images lists all images from memory, the latest pulled first.
func (s *Store) Images(ctx context.Context) ([]Image, error) {
	var list []Image
	for _, r := range s.records() {
		if !r.Removed {
			list = append(list, r.image())
		}
	}
	slices.SortFunc(list, func(a, b Image) int {
		return cmp.Or(b.PulledAt.Compare(a.PulledAt), strings.Compare(a.ID, b.ID))
	})
	return list, nil
}

// records are all images, removed ones too.
func (s *Store) records() []*record {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*record, 0, len(s.images))
	for _, r := range s.images {
		list = append(list, r)
	}
	return list
}

// Tag gives an image one more name, taking it from any other that has it.
func (s *Store) Tag(ctx context.Context, ref, newRef string) error {
	named, err := parseReference(newRef)
	if err != nil {
		return fmt.Errorf("tag %s: %w", ref, err)
	}
	if _, ok := named.(reference.Tagged); !ok {
		return fmt.Errorf("tag %s: %s is not a tag: %w", ref, newRef, errdefs.ErrInvalidArgument)
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	r, err := s.lookup(ref)
	if err != nil {
		return fmt.Errorf("tag: %w", err)
	}
	c := r.clone()
	c.Tags = union(c.Tags, []string{named.String()})
	if err := s.put(c); err != nil {
		return fmt.Errorf("tag %s as %s: %w", ref, named, err)
	}
	s.tell(Change{Action: ActionTag, Image: c.image(), Ref: named.String()})
	return nil
}

func (s *Store) lookup(ref string) (*record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(ref)
}

// Remove removes an image with all its names; see Service. What containers
// need of it stays until they are gone.
func (s *Store) Remove(ctx context.Context, ref string) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	r, err := s.lookup(ref)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err == nil {
		err = s.remove(r)
	}
	if err != nil {
		return fmt.Errorf("remove image %s: %w", ref, err)
	}
	s.tell(removedFrom(r, r.names(), true)...)
	return nil
}

// remove takes an image away, or hides it while containers need it. changing
// is held.
func (s *Store) remove(r *record) error {
	defer s.wakeCollector()
	hidden := r.clone()
	hidden.Tags, hidden.Digests, hidden.Removed = nil, nil, true
	// First nobody finds it any more, and then those are asked for who have:
	// a container that is being made of it is counted, or does not find it.
	s.show(hidden)
	var err error
	if s.used()[r.ID.String()] {
		err = s.write(hidden)
	} else {
		err = s.forget(hidden)
	}
	if err != nil {
		s.show(r)
	}
	return err
}

// show puts an image in the place of what was known of it.
func (s *Store) show(r *record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index(nil, nil, r)
}

// forget deletes an image's record. What it needed is collected later.
// changing is held.
func (s *Store) forget(r *record) error {
	if err := os.Remove(s.recordPath(r.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index(nil, []*record{r})
	return nil
}

// Untag removes one name of an image, and the image with the last one; see
// Service. An ID means all names, which must be of one repository unless
// force is set. An image in use loses its last name only by force, and stays
// without one, as docker has it.
func (s *Store) Untag(ctx context.Context, ref string, force bool) (untagged, deleted []string, err error) {
	used := s.used()
	s.changing.Lock()
	defer s.changing.Unlock()
	r, err := s.lookup(ref)
	if err != nil {
		return nil, nil, fmt.Errorf("untag: %w", err)
	}
	c, err := untag(r, ref, force)
	if err != nil {
		return nil, nil, fmt.Errorf("untag %s: %w", ref, err)
	}
	needed := used[r.ID.String()]
	switch {
	case len(c.Tags) > 0, len(c.Digests) > 0, needed && force:
		err = s.put(c)
	case needed:
		err = fmt.Errorf("a container needs the image: %w", errdefs.ErrFailedPrecondition)
	default:
		if err = s.remove(r); err == nil {
			deleted = []string{r.ID.String()}
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("untag %s: %w", ref, err)
	}
	isLeft := func(name string) bool { return slices.Contains(c.names(), name) }
	untagged = slices.DeleteFunc(r.names(), isLeft)
	s.tell(removedFrom(r, untagged, len(deleted) > 0)...)
	return untagged, deleted, nil
}

// untag returns an image without the name that ref is, or without any when
// ref is an ID or the last tag. A repository's digests go with its last tag.
func untag(r *record, ref string, force bool) (*record, error) {
	c := r.clone()
	name := ""
	if named, err := parseReference(ref); err == nil && slices.Contains(r.names(), named.String()) {
		name = named.String()
	}
	if name == "" {
		if len(repositories(r.Tags)) > 1 && !force {
			return nil, fmt.Errorf("the image is in several repositories; force is needed: %w", errdefs.ErrFailedPrecondition)
		}
		c.Tags, c.Digests = nil, nil
		return c, nil
	}
	is := func(n string) bool { return n == name }
	c.Tags, c.Digests = slices.DeleteFunc(c.Tags, is), slices.DeleteFunc(c.Digests, is)
	if len(c.Tags) == 0 && len(r.Tags) > 0 {
		c.Digests = nil
		return c, nil
	}
	left := repositories(c.Tags)
	if slices.Contains(r.Tags, name) {
		c.Digests = slices.DeleteFunc(c.Digests, func(d string) bool { return !left[repository(d)] && repository(d) == repository(name) })
	}
	return c, nil
}

// repositories are the distinct ones of some references.
func repositories(refs []string) map[string]bool {
	set := map[string]bool{}
	for _, ref := range refs {
		set[repository(ref)] = true
	}
	return set
}

func repository(ref string) string {
	named, err := reference.ParseNamed(ref)
	if err != nil {
		return ref
	}
	return named.Name()
}

// FilesystemUsage sums blobs and layers, from memory.
func (s *Store) FilesystemUsage(ctx context.Context) (FilesystemUsage, error) {
	u := FilesystemUsage{At: time.Now(), Mountpoint: s.layers.Root()}
	blobs, files := s.content.Usage()
	u.Bytes, u.Inodes = uint64(blobs), uint64(files)
	err := s.each(func(_ string, in Layers) error { return u.addLayers(ctx, in) })
	if err != nil {
		return FilesystemUsage{}, fmt.Errorf("usage of images: %w", err)
	}
	return u, nil
}

func (u *FilesystemUsage) addLayers(ctx context.Context, in Layers) error {
	return in.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		if info.Kind != snapshots.KindCommitted {
			return nil
		}
		usage, err := in.Usage(ctx, info.Name)
		if errdefs.IsNotFound(err) {
			return nil // removed meanwhile
		}
		u.Bytes += uint64(max(usage.Size, 0))
		u.Inodes += uint64(max(usage.Inodes, 0))
		return err
	})
}
