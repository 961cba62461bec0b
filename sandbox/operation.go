package sandbox

import (
	"context"
	"fmt"
	"runtime/pprof"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/recorder"
	"github.com/nodeagent/nodeagent/internal/timing"
)

// operation is one piece of work that belongs to a key and not to whoever
// asked for it first.
type operation struct {
	// number tells operations apart while the agent runs.
	number uint64
	// what stands in errors, such as "run pod default/web"; verb is its
	// beginning, by who asked first.
	what, verb, by string
	began          time.Time
	done           chan struct{}
	// id and err are the result, set before done is closed.
	id  string
	err error

	// mu guards the fields below.
	mu             sync.Mutex
	stage          string
	since          time.Time
	steps, within  []recorder.Step
	pod, container string
}

// at notes that a stage begins.
func (o *operation) at(stage string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.steps = append(o.steps, recorder.Step{Name: o.stage, Took: now.Sub(o.since)})
	o.stage, o.since = stage, now
}

// maxWithin bounds the parts of steps that are kept.
const maxWithin = 64

// part notes how long a part of a stage took.
func (o *operation) part(name string, took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.within) < maxWithin {
		o.within = append(o.within, recorder.Step{Name: name, Took: took})
	}
}

// about notes which pod and container it is about.
func (o *operation) about(pod, container string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pod, o.container = pod, container
}

// where says which stage it is at and for how long.
func (o *operation) where() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return fmt.Sprintf("still at stage %q for %s", o.stage, time.Since(o.since).Round(time.Millisecond))
}

// work is what join runs when the key has no operation yet.
type work struct {
	// key owns the operation.
	key string
	// what stands in errors; verb is its first words, without the object.
	what, verb string
	// pod and container are the IDs of what it is about, as far as they are
	// known before it begins.
	pod, container string
	// finished is asked before anything is begun: what an earlier
	// operation of the key has made. "" means nothing.
	finished func() (id string, err error)
	do       func(ctx context.Context, op *operation) (id string, err error)
}

// join runs w, or waits for the operation that the key already has. The work
// goes on when ctx ends; the error then tells how far it is.
func (m *Manager) join(ctx context.Context, w work) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("%s: %w", w.what, err)
	}
	op, err := m.operation(w, recorder.Caller(ctx))
	if err != nil {
		return "", fmt.Errorf("%s: %w", w.what, err)
	}
	select {
	case <-op.done:
	case <-ctx.Done():
		return "", fmt.Errorf("%s: %s: %w", op.what, op.where(), ctx.Err())
	}
	if op.err != nil {
		return "", fmt.Errorf("%s: %w", op.what, op.err)
	}
	return op.id, nil
}

// operation finds or begins the key's operation.
func (m *Manager) operation(w work, by string) (*operation, error) {
	m.opsMu.Lock()
	defer m.opsMu.Unlock()
	if op := m.ops[w.key]; op != nil {
		return op, nil
	}
	m.opsBegun++
	op := &operation{
		number: m.opsBegun, what: w.what, verb: w.verb, by: by, began: time.Now(), done: make(chan struct{}),
		stage: stageBegin, pod: w.pod, container: w.container,
	}
	op.since = op.began
	if w.finished != nil {
		if id, err := w.finished(); err != nil || id != "" {
			op.id = id
			close(op.done)
			return op, err
		}
	}
	if m.closing {
		return nil, fmt.Errorf("the agent is stopping: %w", errdefs.ErrUnavailable)
	}
	m.ops[w.key] = op
	m.wg.Go(func() {
		ctx, cancel := context.WithTimeoutCause(m.ctx, m.cfg.OperationTimeout, fmt.Errorf(
			"gave up after %s: %w", m.cfg.OperationTimeout, context.DeadlineExceeded))
		defer cancel()
		ctx = timing.With(recorder.WithCaller(ctx, op.by), op.part)
		watch := m.watchOperation(op)
		// By the label its goroutines, and what they wait in, are found again.
		pprof.Do(ctx, pprof.Labels(operationLabel, strconv.FormatUint(op.number, 10)), func(ctx context.Context) {
			op.id, op.err = w.do(ctx, op)
		})
		watch.Stop()
		m.noteOperation(op)
		m.opsMu.Lock()
		delete(m.ops, w.key)
		m.opsMu.Unlock()
		close(op.done)
	})
	return op, nil
}

// acquire waits for a gate. The caller releases it.
func acquire(ctx context.Context, g gate) error {
	select {
	case g <- struct{}{}:
		return nil
	default:
	}
	select {
	case g <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("another operation is under way: %w", ctx.Err())
	}
}

// background runs fn in a goroutine that Close waits for, again and again
// until it succeeds or the agent stops. The pauses grow to a minute.
func (m *Manager) background(what string, fn func(ctx context.Context) error) {
	m.spawn(func() {
		for pause := m.cfg.retryPause; ; pause = min(2*pause, time.Minute) {
			ctx, cancel := context.WithTimeout(m.ctx, m.cfg.OperationTimeout)
			err := fn(ctx)
			cancel()
			if err == nil || m.ctx.Err() != nil {
				return
			}
			m.log.WithError(err).Warnf("%s: trying again in %s", what, pause)
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-m.ctx.Done():
				timer.Stop()
				return
			}
		}
	})
}
