package imageservice

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Save writes images as one uncompressed tar, which is both an OCI layout and
// what docker load of any version takes. References may be tags, digests,
// IDs, or repositories, which mean all their tags; an image gets the names it
// was asked for by. Blobs are written as they are kept.
func (s *Store) Save(ctx context.Context, to io.Writer, refs []string, platform string) error {
	l := s.newLease()
	defer l.release(nil)
	list, err := s.savables(ctx, l, refs, platform)
	if err != nil {
		return fmt.Errorf("save: %w", err)
	}
	a := &saving{ctx: ctx, s: s, out: tar.NewWriter(to), written: map[digest.Digest]bool{}}
	if err := a.write(list); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	for _, one := range list {
		s.tell(Change{Action: ActionSave, Image: one.rec.image()})
	}
	return nil
}

// savable is an image to be saved under some names.
type savable struct {
	*whole
	names    []reference.NamedTagged
	manifest ocispec.Descriptor
	raw      []byte
}

// savables finds the images, and makes what is missing of them.
func (s *Store) savables(ctx context.Context, l *lease, refs []string, platform string) ([]*savable, error) {
	var list []*savable
	byID := map[digest.Digest]*savable{}
	for _, ref := range refs {
		recs, names, err := s.resolveAll(ref)
		if err != nil {
			return nil, err
		}
		for i, rec := range recs {
			one := byID[rec.ID]
			if one == nil {
				w, err := s.openWhole(l, rec, platform)
				if err != nil {
					return nil, fmt.Errorf("image %s: %w", ref, err)
				}
				one = &savable{whole: w}
				byID[rec.ID], list = one, append(list, one)
			}
			if names[i] != nil && !slices.ContainsFunc(one.names, func(n reference.NamedTagged) bool { return n.String() == names[i].String() }) {
				one.names = append(one.names, names[i])
			}
		}
	}
	for _, one := range list {
		if err := one.complete(ctx); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// resolveAll finds what a reference names: one image, or all of a repository.
// A name is nil where the image was named by its ID or digest.
func (s *Store) resolveAll(ref string) ([]*record, []reference.NamedTagged, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec, err := s.find(ref)
	named, perr := reference.ParseNormalizedNamed(ref)
	if perr == nil && reference.IsNameOnly(named) && (err != nil || slices.Contains(rec.Tags, reference.TagNameOnly(named).String())) {
		recs, names := s.repositoryTags(named)
		if len(recs) > 0 {
			return recs, names, nil
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if perr == nil {
		if tagged, ok := reference.TagNameOnly(named).(reference.NamedTagged); ok && slices.Contains(rec.Tags, tagged.String()) {
			return []*record{rec}, []reference.NamedTagged{tagged}, nil
		}
	}
	return []*record{rec}, []reference.NamedTagged{nil}, nil
}

// repositoryTags lists all tags of a repository. mu is held.
func (s *Store) repositoryTags(repository reference.Named) (recs []*record, names []reference.NamedTagged) {
	var tags []string
	for name := range s.names {
		if strings.HasPrefix(name, repository.Name()+":") {
			tags = append(tags, name)
		}
	}
	slices.Sort(tags)
	for _, tag := range tags {
		named, err := reference.ParseNamed(tag)
		tagged, ok := named.(reference.NamedTagged)
		if err == nil && ok {
			recs, names = append(recs, s.images[s.names[tag]]), append(names, tagged)
		}
	}
	return recs, names
}

// complete makes sure that all of an image is in the store.
func (o *savable) complete(ctx context.Context) (err error) {
	for i := range o.doc.Layers {
		if _, ok := o.layer(i); !ok {
			if err := o.restore(ctx, i); err != nil {
				return err
			}
		}
	}
	o.manifest, o.raw, err = o.seal()
	return err
}

// saving is an archive being written.
type saving struct {
	ctx     context.Context
	s       *Store
	out     *tar.Writer
	written map[digest.Digest]bool
}

func (a *saving) write(list []*savable) error {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	manifests := []dockerImage{}
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := a.out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: epoch}); err != nil {
			return err
		}
	}
	for _, one := range list {
		entry := dockerImage{Config: blobPath(one.doc.Config.Digest), RepoTags: []string{}, Layers: []string{}}
		for _, desc := range one.doc.Layers {
			entry.Layers = append(entry.Layers, blobPath(desc.Digest))
			if err := a.blob(desc); err != nil {
				return err
			}
		}
		for _, desc := range []ocispec.Descriptor{one.doc.Config, one.manifest} {
			if err := a.blob(desc); err != nil {
				return err
			}
		}
		for _, name := range one.names {
			entry.RepoTags = append(entry.RepoTags, reference.FamiliarString(name))
		}
		index.Manifests = append(index.Manifests, one.descriptors()...)
		manifests = append(manifests, entry)
	}
	return a.documents(index, manifests)
}

// descriptors are those of an image in the index, one for each name.
func (o *savable) descriptors() []ocispec.Descriptor {
	desc := o.manifest
	if p := o.rec.config.Platform; p.OS != "" && p.Architecture != "" {
		desc.Platform = &ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
	}
	if len(o.names) == 0 {
		return []ocispec.Descriptor{desc}
	}
	var all []ocispec.Descriptor
	for _, name := range o.names {
		named := desc
		named.Annotations = map[string]string{nameAnnotation: name.String(), ocispec.AnnotationRefName: name.Tag()}
		all = append(all, named)
	}
	return all
}

// documents ends the archive.
func (a *saving) documents(index ocispec.Index, manifests []dockerImage) error {
	for _, doc := range []struct {
		name  string
		value any
	}{
		{"index.json", index}, {"manifest.json", manifests},
		{ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}},
	} {
		raw, err := json.Marshal(doc.value)
		if err != nil {
			return err
		}
		if err := a.header(doc.name, int64(len(raw))); err != nil {
			return err
		}
		if _, err := a.out.Write(raw); err != nil {
			return err
		}
	}
	return a.out.Close()
}

// epoch is the time of all entries, so that the same images give the same
// bytes.
var epoch = time.Unix(0, 0)

func (a *saving) header(name string, size int64) error {
	return a.out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o444, Size: size, ModTime: epoch})
}

func blobPath(dgst digest.Digest) string {
	return "blobs/" + dgst.Algorithm().String() + "/" + dgst.Encoded()
}

// blob writes a blob once.
func (a *saving) blob(desc ocispec.Descriptor) error {
	if err := a.ctx.Err(); err != nil {
		return context.Cause(a.ctx)
	}
	if a.written[desc.Digest] {
		return nil
	}
	a.written[desc.Digest] = true
	f, err := a.s.content.Open(desc.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	size, ok := a.s.content.Size(desc.Digest)
	if !ok {
		return fmt.Errorf("blob %s: %w", desc.Digest, errdefs.ErrNotFound)
	}
	if err := a.header(blobPath(desc.Digest), size); err != nil {
		return err
	}
	return verifiedCopy(a.out, io.LimitReader(f, size+1), ocispec.Descriptor{Digest: desc.Digest, Size: size})
}
