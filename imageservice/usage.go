package imageservice

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// ImageUsage is what one image takes on the disk: layers as they are unpacked,
// in all snapshotters, and blobs.
type ImageUsage struct {
	Image
	// Exclusive bytes belong to no other image: removing this one frees
	// them. Shared bytes are needed by others too.
	Exclusive, Shared int64
	// InUse says that a container needs it.
	InUse bool
}

// DiskUsage is what all images take. The sum of Exclusive and of what is
// shared, each once, and of Unneeded, is Bytes.
type DiskUsage struct {
	Images []ImageUsage
	// Bytes is the sum of Layers and Blobs.
	Bytes, Layers, Blobs int64
	// Unneeded bytes belong to no image: a pull under way or one that broke
	// off, or what the next collection takes.
	Unneeded int64
	// Reclaimable bytes are needed by no container: they are free when all
	// images that are not in use are removed.
	Reclaimable int64
}

// piece is a layer or blob.
type piece struct {
	bytes int64
	// owners counts images that need it, and used those of them that a
	// container needs.
	owners, used int
}

// DiskUsage counts from memory what images take. Images that were removed
// while a container needs them count as in use, and are not listed.
func (s *Store) DiskUsage(ctx context.Context) (DiskUsage, error) {
	var d DiskUsage
	pieces := map[digest.Digest]*piece{}
	err := s.each(func(_ string, in Layers) error { return countLayers(ctx, in, pieces) })
	if err != nil {
		return d, fmt.Errorf("usage of images: %w", err)
	}
	for _, p := range pieces {
		d.Layers += p.bytes
	}
	for _, dgst := range s.content.Digests() {
		size, _ := s.content.Size(dgst)
		d.Blobs += size
		count(pieces, dgst, size)
	}
	d.Bytes = d.Layers + d.Blobs
	used, records := s.used(), s.records()
	for _, r := range records {
		r.own(pieces, r.Removed || used[r.ID.String()])
	}
	for _, p := range pieces {
		if p.owners == 0 {
			d.Unneeded += p.bytes
		}
		if p.used == 0 {
			d.Reclaimable += p.bytes
		}
	}
	for _, r := range records {
		if !r.Removed {
			d.Images = append(d.Images, r.usage(pieces, used[r.ID.String()]))
		}
	}
	return d, nil
}

// count adds bytes to a piece.
func count(pieces map[digest.Digest]*piece, dgst digest.Digest, bytes int64) {
	p, ok := pieces[dgst]
	if !ok {
		p = new(piece)
		pieces[dgst] = p
	}
	p.bytes += bytes
}

func countLayers(ctx context.Context, in Layers, pieces map[digest.Digest]*piece) error {
	return in.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		if info.Kind != snapshots.KindCommitted {
			return nil
		}
		usage, err := in.Usage(ctx, info.Name)
		if errdefs.IsNotFound(err) {
			return nil // removed meanwhile
		}
		count(pieces, digest.Digest(info.Name), usage.Size)
		return err
	})
}

// parts are the names of all that an image needs. The chain ID of a lowest
// layer is its diffID, which an uncompressed blob has as well: that is told
// apart by nobody needing to, since one image needs both.
func (r *record) parts() map[digest.Digest]bool {
	set := map[digest.Digest]bool{}
	for _, list := range [][]digest.Digest{r.Blobs, r.chainIDs} {
		for _, d := range list {
			set[d] = true
		}
	}
	return set
}

// own counts an image among the owners of its parts.
func (r *record) own(pieces map[digest.Digest]*piece, used bool) {
	for d := range r.parts() {
		p, ok := pieces[d]
		if !ok {
			continue
		}
		p.owners++
		if used {
			p.used++
		}
	}
}

func (r *record) usage(pieces map[digest.Digest]*piece, used bool) ImageUsage {
	u := ImageUsage{Image: r.image(), InUse: used}
	for d := range r.parts() {
		p, ok := pieces[d]
		switch {
		case !ok:
		case p.owners == 1:
			u.Exclusive += p.bytes
		default:
			u.Shared += p.bytes
		}
	}
	return u
}
