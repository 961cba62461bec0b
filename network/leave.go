package network

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/nodeagent/nodeagent/internal/failpoint"
	"github.com/nodeagent/nodeagent/network/builtin"
)

const (
	// reapPause is the time between a failed deletion of links and the next.
	reapPause = time.Second
	// closeLimit bounds what Close waits for.
	closeLimit = 5 * time.Second
)

// reaper sees pods off: those that have given everything back but their links,
// which are down and only wait for the kernel. Their intents stay until the
// links are gone, so that whoever comes after a SIGKILL finds them.
type reaper struct {
	reap   func() error
	forget func(podID string) error

	mu sync.Mutex
	// pods are those to see off; each channel is closed when it is done.
	pods map[string]chan struct{}
	// running is set while a goroutine is at work, which done counts.
	running bool
	done    sync.WaitGroup
	closing chan struct{}
	closed  bool
}

func newReaper(reap func() error, forget func(podID string) error) *reaper {
	return &reaper{reap: reap, forget: forget, pods: map[string]chan struct{}{}, closing: make(chan struct{})}
}

// add takes a pod over.
func (r *reaper) add(podID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pods[podID] == nil {
		r.pods[podID] = make(chan struct{})
	}
	if !r.running && !r.closed {
		r.running = true
		r.done.Go(r.run)
	}
}

// has reports whether a pod is being seen off.
func (r *reaper) has(podID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pods[podID] != nil
}

// wait waits until nothing is left of a pod.
func (r *reaper) wait(ctx context.Context, podID string) error {
	r.mu.Lock()
	gone := r.pods[podID]
	r.mu.Unlock()
	if gone == nil {
		return nil
	}
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the links of pod %s to go: %w", podID, context.Cause(ctx))
	}
}

// drain waits until nothing is left of all pods of now.
func (r *reaper) drain(ctx context.Context) error {
	r.mu.Lock()
	var ids []string
	for id := range r.pods {
		ids = append(ids, id)
	}
	r.mu.Unlock()
	for _, id := range ids {
		if err := r.wait(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// run works until there is no pod any more, or close was called and the batch
// under way is done.
func (r *reaper) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		r.mu.Lock()
		if len(r.pods) == 0 {
			r.running = false
			r.mu.Unlock()
			return
		}
		var batch []string
		for id := range r.pods {
			batch = append(batch, id)
		}
		r.mu.Unlock()
		if r.seeOff(batch) {
			continue
		}
		timer.Reset(reapPause)
		select {
		case <-timer.C:
		case <-r.closing:
			return // the next agent goes on
		}
	}
}

// seeOff reports whether it did all of a batch.
func (r *reaper) seeOff(batch []string) bool {
	err := failpoint.Inject(context.Background(), "network.reap.before")
	if err == nil {
		err = r.reap()
	}
	if err == nil {
		err = failpoint.Inject(context.Background(), "network.reap.after")
	}
	if err != nil {
		logrus.WithError(err).Warn("links of pods cannot be deleted; trying again")
		return false
	}
	all := true
	for _, id := range batch {
		if err := r.forget(id); err != nil {
			logrus.WithError(err).Warn("network of a pod cannot be forgotten; trying again")
			all = false
			continue
		}
		r.mu.Lock()
		close(r.pods[id])
		delete(r.pods, id)
		r.mu.Unlock()
	}
	return all
}

// close waits a bounded time for what is under way. What is left then has its
// intent.
func (r *reaper) close() {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.closing)
	}
	r.mu.Unlock()
	done := make(chan struct{})
	go func() { r.done.Wait(); close(done) }()
	timer := time.NewTimer(closeLimit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		logrus.Warn("links of pods are still being deleted")
	}
}

// seeOff forgets a pod that gave everything back; one whose links are only
// down as yet is left to the reaper.
func (m *Manager) seeOff(a Attachment) error {
	if !m.plugins.Leaving(builtin.Owner(a.PodID, a.interfaceName())) {
		return m.removeIntent(a.PodID)
	}
	m.reaper.add(a.PodID)
	return nil
}
