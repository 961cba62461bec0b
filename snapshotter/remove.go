package snapshotter

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
)

// Remove removes a snapshot that has no children: its name is free and its
// directory out of the way when it returns; the files are deleted later. The
// snapshot must not be mounted.
func (o *Overlay) Remove(ctx context.Context, key string) error {
	s, err := o.take(key)
	if err != nil {
		return fmt.Errorf("remove snapshot: %w", err)
	}
	if err := o.childless(s); err != nil {
		o.release(s)
		return fmt.Errorf("remove snapshot %s: %w", key, err)
	}
	if o.images != nil {
		o.images.drop(s.id)
	}
	if err := o.discard(s.id); err != nil {
		o.release(s)
		return fmt.Errorf("remove snapshot %s: %w", key, err)
	}
	o.forget(s)
	return nil
}

func (o *Overlay) childless(s *snapshot) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.children > 0 {
		return fmt.Errorf("%d snapshots are on top of it: %w", s.children, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// reaper deletes what is in the trash from one goroutine, which stop ends
// and waits for.
type reaper struct {
	dir  string
	done chan struct{}

	mu sync.Mutex
	// cond is signalled when one of the following changes.
	cond *sync.Cond
	// asked counts calls of wake, swept those whose trash is deleted.
	asked, swept uint64
	stopped      bool
}

func startReaper(dir string) *reaper {
	r := &reaper{dir: dir, done: make(chan struct{}), asked: 1}
	r.cond = sync.NewCond(&r.mu)
	go r.run()
	return r
}

// wake tells that something came into the trash.
func (r *reaper) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	r.cond.Broadcast()
}

func (r *reaper) stop() {
	r.mu.Lock()
	r.stopped = true
	r.cond.Broadcast()
	r.mu.Unlock()
	<-r.done
}

// wait returns when everything asked for so far is deleted, or fails when it
// was stopped before.
func (r *reaper) wait(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.cond.Broadcast()
	})()
	r.mu.Lock()
	defer r.mu.Unlock()
	for want := r.asked; r.swept < want; r.cond.Wait() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if r.stopped {
			return fmt.Errorf("delete removed snapshots: closed: %w", errdefs.ErrUnavailable)
		}
	}
	return nil
}

func (r *reaper) run() {
	defer close(r.done)
	for {
		asked, ok := r.next()
		if !ok {
			return
		}
		r.sweep()
		r.mu.Lock()
		r.swept = asked
		r.cond.Broadcast()
		r.mu.Unlock()
	}
}

// next waits for work.
func (r *reaper) next() (asked uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.swept >= r.asked && !r.stopped {
		r.cond.Wait()
	}
	return r.asked, !r.stopped
}

func (r *reaper) sweep() {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		logrus.WithError(err).Warn("cannot list removed snapshots")
		return
	}
	for _, e := range entries {
		r.mu.Lock()
		stopped := r.stopped
		r.mu.Unlock()
		if stopped {
			return
		}
		if err := os.RemoveAll(filepath.Join(r.dir, e.Name())); err != nil {
			logrus.WithError(err).Warn("cannot delete a removed snapshot; the next start tries again")
		}
	}
}
