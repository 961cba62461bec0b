package sandbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nodeagent/nodeagent/internal/recorder"
	"github.com/nodeagent/nodeagent/supervisor"
)

// connect connects to the supervisor and subscribes to its events. What ended
// before the subscription is found by findExits.
func (m *Manager) connect(ctx context.Context) (<-chan supervisor.Event, error) {
	sup, err := m.deps.Connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to the supervisor: %w", err)
	}
	// The subscription lives as long as the Manager, whatever bounds the
	// connecting.
	events, err := sup.Subscribe(m.linkCtx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to the supervisor's events: %w", err), sup.Close())
	}
	m.sup.Store(&sup)
	return events, nil
}

// watch handles the supervisor's events, and connects anew when the
// connection is lost, until the Manager is closed. events is nil when there
// is no connection yet.
func (m *Manager) watch(events <-chan supervisor.Event) {
	for pause := m.cfg.retryPause / 10; ; {
		if events != nil {
			m.handleEvents(events)
			m.disconnect()
		}
		if m.linkCtx.Err() != nil {
			return
		}
		if events != nil {
			m.noteAgent("the supervisor ended, or let go of the agent")
		}
		var err error
		ctx, cancel := context.WithTimeout(m.linkCtx, m.cfg.RecoveryTimeout)
		events, err = m.connect(ctx)
		cancel()
		if err == nil {
			// Again and again until it succeeds: no event tells of these.
			m.background("look for missed exits", m.findExits)
			m.log.Info("connected to the supervisor again")
			m.noteAgent("nodeagent has a supervisor again; it goes on with the containers that run")
			pause = m.cfg.retryPause / 10
			continue
		}
		m.log.WithError(err).Warn("no supervisor")
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-m.linkCtx.Done():
			timer.Stop()
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// shortened is an error that says less than it knows.
type shortened struct {
	error
	text string
}

func (s shortened) Error() string { return s.text }

func (s shortened) Unwrap() error { return s.error }

// unsaid takes words off the beginning of the supervisor's error that the
// caller's own error begins with too.
func unsaid(err error, words string) error {
	if err == nil {
		return nil
	}
	if rest, ok := strings.CutPrefix(err.Error(), words); ok {
		return shortened{error: err, text: strings.TrimPrefix(strings.TrimPrefix(rest, ":"), " ")}
	}
	return err
}

// disconnect gives the connection up; calls fail with ErrUnavailable until
// there is another.
func (m *Manager) disconnect() {
	if sup := m.sup.Swap(nil); sup != nil {
		if err := (*sup).Close(); err != nil {
			m.log.WithError(err).Debug("close connection to the supervisor")
		}
	}
}

// handleEvents returns when events is closed or the Manager is.
func (m *Manager) handleEvents(events <-chan supervisor.Event) {
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return
			}
			m.handleEvent(e)
		case <-m.linkCtx.Done():
			return
		}
	}
}

// handleEvent takes an exit up in the background: cleaning up after one
// container must not hold up the news of the next.
func (m *Manager) handleEvent(e supervisor.Event) {
	c, err := m.findContainer(e.ID)
	if err == nil && e.Type == supervisor.EventOOM {
		m.oomKilled(c, e)
	}
	if err != nil || e.Type != supervisor.EventExit || e.Exit == nil {
		return
	}
	exit, seen := *e.Exit, c.get()
	m.spawn(func() {
		ctx, cancel := context.WithTimeout(m.ctx, m.cfg.OperationTimeout)
		defer cancel()
		if err := m.runEnded(ctx, c, seen, exit); err != nil && m.ctx.Err() == nil {
			m.log.WithError(err).Warnf("clean up after container %s", e.ID)
		}
	})
}

// oomKilled tells that the kernel killed in a container. It does not wait while
// the container runs, so that this is told before its end; where it is not yet
// recorded that it does, the start is waited for.
func (m *Manager) oomKilled(c *container, e supervisor.Event) {
	s := c.get()
	m.deps.Recorder.Note(recorder.Entry{Kind: recorder.KindOOM, At: e.At, Pod: s.PodID, Container: s.ID, Count: e.Kills})
	if s.State.alive() {
		m.publish(EventOOM, s.ID, c.pod)
		return
	}
	m.spawn(func() {
		ctx, cancel := context.WithTimeout(m.ctx, m.cfg.OperationTimeout)
		defer cancel()
		if acquire(ctx, c.busy) != nil {
			return
		}
		defer c.busy.release()
		if c.get().State.alive() {
			m.publish(EventOOM, s.ID, c.pod)
		}
	})
}

// findExits compares the containers that run with what the supervisor has:
// one that ended while nobody listened is recorded now, and one that it does
// not know at all ended without anybody seeing how.
func (m *Manager) findExits(ctx context.Context) error {
	sup, err := m.supervisor()
	if err != nil {
		return err
	}
	// Containers are listed before the supervisor is asked, so that one
	// started in between is not taken for lost.
	seen := map[*container]*containerState{}
	for _, c := range m.runningContainers() {
		if s := c.get(); s.State.alive() {
			seen[c] = s
		}
	}
	states, err := sup.List(ctx)
	if err != nil {
		return fmt.Errorf("list the supervisor's containers: %w", err)
	}
	known := make(map[string]supervisor.State, len(states))
	for _, s := range states {
		known[s.ID] = s
	}
	var mu sync.Mutex
	var errs []error
	forEach(slices.Collect(maps.Keys(seen)), func(c *container) {
		exit := endIn(known, c.get().ID)
		if exit == nil {
			return
		}
		err := m.runEnded(ctx, c, seen[c], *exit)
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, err)
	})
	return errors.Join(errs...)
}

// runningContainers are those that the records say run.
func (m *Manager) runningContainers() []*container {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var list []*container
	for _, c := range m.containers {
		if c.get().State.alive() {
			list = append(list, c)
		}
	}
	return list
}

// compare takes up what the supervisor knows of a running container.
func (m *Manager) compare(ctx context.Context, c *container, known map[string]supervisor.State) error {
	if exit := endIn(known, c.get().ID); exit != nil {
		return m.exited(ctx, c, *exit)
	}
	return nil
}

// endIn is how a container ended by what the supervisor knows; nil while it
// has not.
func endIn(known map[string]supervisor.State, id string) *supervisor.Exit {
	s, ok := known[id]
	switch {
	case ok && s.Status != supervisor.StatusStopped:
		return nil
	case !ok, s.Exit == nil:
		return &supervisor.Exit{Code: unknownCode, Reason: reasonLost}
	}
	return s.Exit
}

// maxParallel bounds work done for many objects at once.
const maxParallel = 8

// forEach calls fn for each item, several at a time, and waits for all.
func forEach[T any](items []T, fn func(T)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxParallel)
	for _, item := range items {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			fn(item)
		})
	}
	wg.Wait()
}
