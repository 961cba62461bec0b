package imageservice

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/imageservice/content"
	"github.com/nodeagent/nodeagent/imageservice/unpack"
	"github.com/nodeagent/nodeagent/snapshotter"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

const (
	// layerLabel marks the snapshots that are layers of images; its value
	// is the diffID. The collector looks at no others.
	layerLabel = "nodeagent/layer"
	// unpackPrefix begins the keys of snapshots being unpacked.
	unpackPrefix = "unpack-"
	// joinAttempts is how often a pull takes over from others that failed.
	joinAttempts = 4
)

// unpackers is how many layers of one image are unpacked at one time, beside
// the largest. Each takes a processor to inflate and half of one for the rest.
var unpackers = max(1, runtime.NumCPU()-1)

// job is a layer being made by one pull. Others that need it wait for it.
//
//	claimed ──▶ unpacked ──▶ done (committed)
//	   └───────────┴───────▶ done (err)
type job struct {
	layerKey
	key string
	// unpacked is closed when the snapshot of the key holds the layer.
	unpacked chan struct{}
	// done is closed when the layer is committed, or err is set.
	done chan struct{}
	err  error
}

// layerKey says which layer, and in which snapshotter.
type layerKey struct {
	snapshotter string
	chain       digest.Digest
}

// slot is one layer of an image as one pull sees it. With neither own nor
// others' work, the layer is there.
type slot struct {
	desc          ocispec.Descriptor
	diffID, chain digest.Digest
	job           *job
	own           bool
	transfer      *content.Transfer
	result        unpack.Result
	// lower is the unpacked layer, once a layer above it looked into it.
	lower *unpack.Lower
	// sealed is closed when a layer of our own can be committed.
	sealed chan struct{}
}

// joinError is the failure of another pull's layer.
type joinError struct{ err error }

func (e joinError) Error() string { return e.err.Error() }
func (e joinError) Unwrap() error { return e.err }

// unpackImage makes all layers of an image that are not there. Layers are
// fetched and unpacked at the same time and committed in order.
func (s *Store) unpackImage(ctx context.Context, l *lease, f *found, p *progress) (added bool, err error) {
	in, err := s.snapshotter(f.snapshotter)
	if err != nil {
		return false, err
	}
	for _, desc := range f.layers {
		l.keepBlobs(desc.Digest)
	}
	l.keepChains(f.chainIDs...)
	if err := s.checkRoom(in, f); err != nil {
		return false, err
	}
	if isSerial(in) {
		return s.unpackSerially(ctx, in, f, p)
	}
	for range joinAttempts {
		w := &work{s: s, in: in, f: f, p: p, slots: s.claim(in, f)}
		added = added || w.missing()
		err = w.run(ctx)
		var other joinError
		if !errors.As(err, &other) || ctx.Err() != nil {
			return added, err
		}
	}
	return added, err
}

// claim decides who makes which layer. All in one step and from the lowest
// up, so that pulls wait for each other only in that direction.
func (s *Store) claim(in Layers, f *found) []*slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	slots := make([]*slot, len(f.layers))
	for i, desc := range f.layers {
		sl := &slot{desc: desc, diffID: f.diffIDs[i], chain: f.chainIDs[i]}
		slots[i] = sl
		if _, err := in.Stat(s.ctx, sl.chain.String()); err == nil {
			continue
		}
		which := layerKey{f.snapshotter, sl.chain}
		if sl.job = s.jobs[which]; sl.job != nil {
			continue
		}
		s.seq++
		sl.own, sl.sealed = true, make(chan struct{})
		sl.job = &job{
			layerKey: which, key: unpackPrefix + sl.chain.Encoded()[:12] + "-" + strconv.FormatUint(s.seq, 10),
			unpacked: make(chan struct{}), done: make(chan struct{}),
		}
		s.jobs[which] = sl.job
	}
	return slots
}

// end finishes a job of ours, with or without success.
func (s *Store) end(j *job, err error) {
	s.mu.Lock()
	delete(s.jobs, j.layerKey)
	s.mu.Unlock()
	j.err = err
	close(j.done)
}

// work is one pull's part in the layers of its image.
type work struct {
	s *Store
	// in holds the layers.
	in    Layers
	f     *found
	p     *progress
	slots []*slot

	// mu guards held, which gives back the lower layers, and slot.lower. It
	// is held while one of them is opened, which the others then need not.
	mu   sync.Mutex
	held []func()
}

// missing tells whether any layer is not there.
func (w *work) missing() bool {
	for _, sl := range w.slots {
		if sl.job != nil {
			return true
		}
	}
	return false
}

func (w *work) run(ctx context.Context) (err error) {
	committed := 0
	defer func() { w.abandon(committed, err) }()
	defer w.letGo()
	if err := w.begin(); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.launch(gctx, g) })
	for ; committed < len(w.slots) && err == nil; committed++ {
		if err = w.commit(gctx, committed); err != nil {
			break
		}
	}
	if err != nil {
		// Somebody else's failure ends ours, too.
		g.Go(func() error { return err })
	}
	if first := g.Wait(); first != nil && (err == nil || isEnd(err)) {
		err = first
	}
	return err
}

// begin starts the transfers of our layers.
func (w *work) begin() (err error) {
	for _, sl := range w.slots {
		if sl.job == nil {
			w.p.tell(sl.desc, "Already exists", 0)
			continue
		}
		w.p.tell(sl.desc, "Pulling fs layer", 0)
		if !sl.own {
			continue
		}
		desc := sl.desc
		sl.transfer, err = w.s.content.Fetch(desc, opener(w.f.src, desc))
		if err != nil {
			return err
		}
		sl.transfer.Watch(func(n int64) { w.p.tell(desc, "Downloading", n) })
	}
	return nil
}

// launch starts unpacking our layers from the lowest up, a few at one time. A
// layer waits only for lower ones, which were started before it. The largest
// has a place of its own from the beginning: one layer cannot be split, and
// would be unpacked alone when the others are done.
func (w *work) launch(ctx context.Context, g *errgroup.Group) error {
	ahead := &aheadSync{s: w.s, in: w.in}
	largest := -1
	for i, sl := range w.slots {
		if !sl.own {
			continue
		}
		ahead.left++
		if largest < 0 || sl.desc.Size > w.slots[largest].desc.Size {
			largest = i
		}
	}
	start := func(i int, done func()) {
		sl := w.slots[i]
		g.Go(func() error {
			err := w.unpack(ctx, i)
			done()
			if err != nil {
				return fmt.Errorf("layer %s: %w", sl.desc.Digest, err)
			}
			ahead.unpacked(sl.result.Bytes + sl.desc.Size)
			return nil
		})
	}
	places := make(chan struct{}, unpackers)
	if largest >= 0 {
		start(largest, func() {})
	}
	for i, sl := range w.slots {
		if !sl.own || i == largest {
			continue
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		start(i, func() { <-places })
	}
	return nil
}

// unpack makes the snapshot of one layer and fills it while its bytes arrive.
func (w *work) unpack(ctx context.Context, i int) error {
	sl := w.slots[i]
	if err := prepareLayer(ctx, w.in, sl.job.key); err != nil {
		return err
	}
	r, err := sl.transfer.Reader(ctx)
	if err != nil {
		return blame(ctx, sl.transfer, err)
	}
	sl.result, err = w.s.apply(ctx, w.in, sl.job.key, r, w.below(i))
	if err != nil {
		return blame(ctx, sl.transfer, err)
	}
	// Only now are the bytes known to be the right ones.
	if err := sl.transfer.Wait(ctx); err != nil {
		return err
	}
	if sl.result.DiffID != sl.diffID {
		return blame(ctx, sl.transfer, wrongDiffID(sl.result.DiffID, sl.diffID))
	}
	w.p.tell(sl.desc, "Extracting", sl.desc.Size)
	close(sl.job.unpacked)
	// Others wait for no more than the files.
	if err := seal(w.in, sl.job.key, &sl.result); err != nil {
		return err
	}
	close(sl.sealed)
	return nil
}

func wrongDiffID(got, want digest.Digest) error {
	return fmt.Errorf("it unpacks to %s in place of %s: %w", got, want, errdefs.ErrDataLoss)
}

// blameTimeout is how long a layer that does not unpack may take to arrive.
const blameTimeout = 10 * time.Second

// blame finds out whether a layer that does not unpack is bad, or did not
// arrive as it should or stay so, which is the better reason.
func blame(ctx context.Context, t *content.Transfer, err error) error {
	if errdefs.IsInvalidArgument(err) || errdefs.IsDataLoss(err) || errdefs.IsNotFound(err) {
		limited, cancel := context.WithTimeout(ctx, blameTimeout)
		defer cancel()
		_ = t.Wait(limited)
		if damaged := t.Recheck(); damaged != nil {
			return damaged
		}
	}
	if failed := t.Failed(); failed != nil {
		return failed
	}
	return err
}

// below is how a layer gets those below it; nil for the lowest.
func (w *work) below(i int) func(context.Context) ([]*unpack.Lower, error) {
	if i == 0 {
		return nil
	}
	return func(ctx context.Context) ([]*unpack.Lower, error) { return w.lowers(ctx, i) }
}

// lowers waits for the layers below one, and returns them, the nearest first.
func (w *work) lowers(ctx context.Context, i int) ([]*unpack.Lower, error) {
	lowers := make([]*unpack.Lower, 0, i)
	for j := i - 1; j >= 0; j-- {
		l, err := w.lower(ctx, w.slots[j])
		if err != nil {
			return nil, err
		}
		lowers = append(lowers, l)
	}
	return lowers, nil
}

// lower waits until a layer is unpacked, and opens it for all above it.
func (w *work) lower(ctx context.Context, sl *slot) (*unpack.Lower, error) {
	if sl.job != nil {
		select {
		case <-sl.job.unpacked:
		case <-sl.job.done:
			if sl.job.err != nil {
				return nil, joinError{sl.job.err}
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if sl.lower != nil {
		return sl.lower, nil
	}
	dir, release, err := w.hold(sl)
	if err != nil {
		return nil, err
	}
	w.held = append(w.held, release)
	l, err := unpack.OpenLower(dir)
	if err != nil {
		return nil, err
	}
	w.held = append(w.held, l.Close)
	sl.lower = l
	return l, nil
}

// hold keeps the directory of an unpacked layer.
func (w *work) hold(sl *slot) (dir string, release func(), err error) {
	if sl.job != nil {
		dir, release, err = w.in.HoldLayer(sl.job.key)
		if !errdefs.IsNotFound(err) {
			return dir, release, err
		}
		// It has been committed meanwhile.
	}
	return w.in.HoldLayer(sl.chain.String())
}

// letGo gives back what was held. Nobody works any more.
func (w *work) letGo() {
	for _, release := range slices.Backward(w.held) {
		release()
	}
	w.held = nil
}

// commit waits for one layer and, when it is ours, puts it on the one below,
// which is committed.
func (w *work) commit(ctx context.Context, i int) error {
	sl := w.slots[i]
	if sl.job == nil {
		return nil
	}
	if !sl.own {
		select {
		case <-sl.job.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if sl.job.err != nil {
			return joinError{sl.job.err}
		}
		w.p.tell(sl.desc, "Pull complete", sl.desc.Size)
		return nil
	}
	select {
	case <-sl.sealed:
	case <-ctx.Done():
		return ctx.Err()
	}
	opts := []snapshots.Opt{snapshots.WithLabels(layerLabels(sl))}
	if i > 0 {
		below := w.slots[i-1]
		opts = append(opts, snapshots.WithParent(below.chain.String()))
	}
	if err := w.in.Commit(ctx, sl.chain.String(), sl.job.key, opts...); err != nil {
		return err
	}
	sl.transfer.Release()
	sl.transfer = nil
	w.s.end(sl.job, nil)
	w.p.tell(sl.desc, "Pull complete", sl.desc.Size)
	return nil
}

func layerLabels(sl *slot) map[string]string {
	labels := map[string]string{layerLabel: sl.diffID.String(), snapshotter.LabelSync: "caller"}
	if !sl.result.RootSet {
		labels[snapshotter.LabelRoot] = "parent"
	}
	if sl.result.Inodes >= 0 {
		labels[snapshotter.LabelBytes] = strconv.FormatInt(sl.result.Bytes, 10)
		labels[snapshotter.LabelInodes] = strconv.FormatInt(sl.result.Inodes, 10)
	}
	return labels
}

// abandon gives up our layers from a position on. Nobody works on them.
func (w *work) abandon(from int, err error) {
	for _, sl := range w.slots[from:] {
		if sl.transfer != nil {
			sl.transfer.Release()
			sl.transfer = nil
		}
		if !sl.own {
			continue
		}
		if err == nil {
			err = errdefs.ErrUnknown
		}
		// A snapshot that stays is dropped at the next start. The context
		// that ended must not keep this from being done.
		if rerr := w.in.Remove(context.WithoutCancel(w.s.ctx), sl.job.key); rerr != nil && !errdefs.IsNotFound(rerr) {
			err = errors.Join(err, rerr)
		}
		w.s.end(sl.job, err)
	}
}
