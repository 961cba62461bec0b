package imageservice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/nodeagent/nodeagent/imageservice/unpack"
	"github.com/nodeagent/nodeagent/snapshotter/erofs"
)

// Finding is something wrong with what is stored.
type Finding struct {
	// Kind is "blob" or "layer", and Name its digest or chain ID.
	Kind, Name string
	// Snapshotter holds the layer, and Path is the file in it; empty when
	// all of it is meant.
	Snapshotter, Path string
	// Images are the IDs of those that need it.
	Images []string
	// Problem says what is wrong.
	Problem string
	// Repaired says that it is right now; RepairError why it is not.
	Repaired    bool
	RepairError string
}

// VerifyOptions say how a store is verified.
type VerifyOptions struct {
	// Repair fetches anew what is bad, and nothing else.
	Repair bool
	// Found is called for each finding, in order; its error ends verifying.
	Found func(Finding) error
	// Progress, when not nil, is told what was read so far and of how much.
	Progress func(done, total int64) error
}

// Verified sums up what was looked at.
type Verified struct {
	Blobs, Layers int
	// Bytes were read.
	Bytes int64
	// Unchecked counts layers that were unpacked without checksums.
	Unchecked int
}

// Verify reads all that is stored, and compares it with its digests and
// checksums. It may run while images are used, pulled and removed.
func (s *Store) Verify(ctx context.Context, opts VerifyOptions) (Verified, error) {
	l := s.newLease()
	defer l.release(nil)
	v := &verifier{s: s, ctx: ctx, opts: opts}
	for _, r := range s.records() {
		l.keepBlobs(r.Blobs...)
		l.keepChains(r.chainIDs...)
	}
	if err := v.run(); err != nil {
		return v.sum, fmt.Errorf("verify the store: %w", err)
	}
	return v.sum, nil
}

// verifier is one call of Verify.
type verifier struct {
	s     *Store
	ctx   context.Context
	opts  VerifyOptions
	sum   Verified
	total int64
}

func (v *verifier) run() error {
	usage, err := v.s.FilesystemUsage(v.ctx)
	if err != nil {
		return err
	}
	v.total = int64(usage.Bytes)
	// Blobs come first: layers are repaired from them.
	for _, dgst := range v.s.content.Digests() {
		if err := v.blob(dgst); err != nil {
			return err
		}
	}
	return v.s.each(func(name string, in Layers) error {
		return in.Walk(v.ctx, func(_ context.Context, info snapshots.Info) error {
			if info.Kind != snapshots.KindCommitted || info.Labels[layerLabel] == "" {
				return nil
			}
			return v.layer(name, in, info.Name)
		})
	})
}

func (v *verifier) progress(n int64) error {
	v.sum.Bytes += n
	if err := v.ctx.Err(); err != nil {
		return err
	}
	if v.opts.Progress == nil {
		return nil
	}
	return v.opts.Progress(v.sum.Bytes, max(v.total, v.sum.Bytes))
}

// owners are the images that need a blob or a layer.
func (v *verifier) owners(needs func(*record) bool) []*record {
	var list []*record
	for _, r := range v.s.records() {
		if needs(r) {
			list = append(list, r)
		}
	}
	return list
}

func ids(list []*record) []string {
	var out []string
	for _, r := range list {
		out = append(out, r.ID.String())
	}
	return out
}

func (v *verifier) blob(dgst digest.Digest) error {
	v.sum.Blobs++
	err := v.hash(dgst)
	if errdefs.IsNotFound(err) {
		return nil // removed meanwhile
	}
	if !errdefs.IsDataLoss(err) {
		return err
	}
	owners := v.owners(func(r *record) bool { return slices.Contains(r.Blobs, dgst) })
	f := Finding{Kind: "blob", Name: dgst.String(), Images: ids(owners), Problem: err.Error()}
	if v.opts.Repair {
		v.repaired(&f, v.refetch(dgst, owners))
	}
	return v.opts.Found(f)
}

func (v *verifier) repaired(f *Finding, err error) {
	f.Repaired = err == nil
	if err != nil {
		f.RepairError = err.Error()
	}
}

// hash compares a blob with its digest.
func (v *verifier) hash(dgst digest.Digest) error {
	f, err := v.s.content.Open(dgst)
	if err != nil {
		return err
	}
	defer f.Close()
	verifier := dgst.Verifier()
	buf := make([]byte, 1<<20)
	for {
		n, err := f.Read(buf)
		verifier.Write(buf[:n])
		if perr := v.progress(int64(n)); perr != nil {
			return perr
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: %w", err, errdefs.ErrDataLoss)
		}
	}
	if !verifier.Verified() {
		return fmt.Errorf("its content has another digest: %w", errdefs.ErrDataLoss)
	}
	return nil
}

// refetch brings a damaged blob anew. One that no image needs is deleted.
func (v *verifier) refetch(dgst digest.Digest, owners []*record) error {
	size, _ := v.s.content.Size(dgst)
	if err := v.s.content.Delete(dgst); err != nil || len(owners) == 0 {
		return err
	}
	var errs []error
	for _, r := range owners {
		err := v.s.refetch(v.ctx, r, dgst, size)
		if err == nil {
			return v.s.content.Sync()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (v *verifier) layer(name string, in Layers, chain string) error {
	v.sum.Layers++
	f := Finding{Kind: "layer", Name: chain, Snapshotter: v.s.recordedName(name)}
	var paths []string
	err := v.compare(in, chain, func(path string, err error) error {
		paths = append(paths, path)
		return nil
	})
	switch {
	case v.ctx.Err() != nil:
		return v.ctx.Err()
	case err == nil && len(paths) == 0:
		return nil
	case errdefs.IsNotFound(err):
		if in.CheckLayer(chain) == nil {
			v.sum.Unchecked++ // there, but without checksums
		}
		return nil
	case err != nil && !errdefs.IsDataLoss(err):
		return err
	}
	owners := v.owners(func(r *record) bool { return slices.Contains(r.chainIDs, digest.Digest(chain)) })
	f.Images = ids(owners)
	var rerr error
	if v.opts.Repair {
		rerr = v.s.repairLayer(v.ctx, name, chain, owners, paths)
	}
	if err != nil {
		paths = []string{""}
	}
	for _, path := range paths {
		one := f
		one.Path, one.Problem = path, "the file is damaged or lost"
		if err != nil {
			one.Problem = err.Error()
		}
		if v.opts.Repair {
			v.repaired(&one, rerr)
		}
		if err := v.opts.Found(one); err != nil {
			return err
		}
	}
	return nil
}

// compare compares a layer with its checksums. bad is called for files of a
// directory; other damage is an error.
func (v *verifier) compare(in Layers, chain string, bad func(string, error) error) error {
	if err := in.CheckLayer(chain); err != nil {
		return err
	}
	encoded, err := in.LayerSums(chain)
	if err != nil {
		return err
	}
	file, err := in.LayerFile(chain)
	if err != nil {
		return err
	}
	if file != "" {
		return v.compareImage(file, encoded)
	}
	dir, release, err := in.HoldLayer(chain)
	if err != nil {
		return err
	}
	defer release()
	return unpack.Verify(v.ctx, dir, encoded, bad, v.progress)
}

func (v *verifier) compareImage(file string, encoded []byte) error {
	sums, err := erofs.DecodeSums(encoded)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return sums.Verify(f, v.progress)
}

// repairLayer unpacks a layer again for the first of its images that this
// works with.
func (s *Store) repairLayer(ctx context.Context, name, chain string, owners []*record, paths []string) error {
	in, err := s.snapshotter(name)
	if err != nil {
		return err
	}
	err = fmt.Errorf("no image needs it: %w", errdefs.ErrNotFound)
	for _, r := range owners {
		if err = s.repairFor(ctx, in, name, chain, r, paths); err == nil {
			return nil
		}
	}
	return err
}

func (s *Store) repairFor(ctx context.Context, in Layers, name, chain string, r *record, paths []string) error {
	select {
	case s.healing <- struct{}{}:
		defer func() { <-s.healing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	l := s.newLease()
	defer l.release(nil)
	f, err := s.local(ctx, l, r)
	if err != nil {
		return err
	}
	f.snapshotter = name
	for i, one := range f.chainIDs {
		if one.String() == chain {
			return s.restore(ctx, in, f, i, paths)
		}
	}
	return fmt.Errorf("layer %s: %w", chain, errdefs.ErrNotFound)
}
