package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// thawTime bounds the thawing of containers that somebody waits for; it goes
// on in the background.
const thawTime = time.Minute

// freezer holds containers still while they are checkpointed. No stop, start
// or removal of them happens meanwhile.
type freezer struct {
	*Manager
	// containers are in the order of their IDs, so that two freezers never
	// wait for each other.
	containers []*container
	// held counts the containers whose gates are held.
	held int
	// frozen are those to thaw.
	frozen []*container
}

func newFreezer(m *Manager, containers []*container) *freezer {
	slices.SortFunc(containers, func(a, b *container) int { return cmp.Compare(a.get().ID, b.get().ID) })
	return &freezer{Manager: m, containers: containers}
}

// hold keeps every other operation off the containers until release.
func (f *freezer) hold(ctx context.Context) error {
	for _, c := range f.containers {
		if err := acquire(ctx, c.busy); err != nil {
			return fmt.Errorf("container %s: %w", c.get().ID, err)
		}
		f.held++
	}
	return nil
}

func (f *freezer) release() {
	for _, c := range f.containers[:f.held] {
		c.busy.release()
	}
	f.held = 0
}

// freeze freezes all containers. That they shall be thawed is written down
// before. One that a person has paused is still already, and stays so.
func (f *freezer) freeze(ctx context.Context) error {
	sup, err := f.supervisor()
	if err != nil {
		return err
	}
	for _, c := range f.containers {
		s := c.get()
		switch s.State {
		case ContainerPaused:
			continue
		case ContainerRunning:
		default:
			return fmt.Errorf("container %s is %s: %w", s.ID, s.State, errdefs.ErrFailedPrecondition)
		}
		f.frozen = append(f.frozen, c)
		if err := f.changeContainer(c, func(s *containerState) { s.Frozen, s.State = true, ContainerPaused }); err != nil {
			return err
		}
		if err := sup.Pause(ctx, s.ID); err != nil {
			return fmt.Errorf("container %s: %w", s.ID, unsaid(err, "pause container "+s.ID))
		}
	}
	return nil
}

// thaw lets all frozen containers go on, side by side, whatever has ended
// meanwhile. It may be called again. What cannot be thawed now is tried again
// in the background.
func (f *freezer) thaw() error {
	list := f.frozen
	f.frozen = nil
	// Not the Manager's context: an agent that ends must thaw too.
	ctx, cancel := context.WithTimeout(context.Background(), thawTime)
	defer cancel()
	var mu sync.Mutex
	var errs []error
	forEach(list, func(c *container) {
		if err := f.thawContainer(ctx, c); err != nil {
			mu.Lock()
			errs = append(errs, err)
			mu.Unlock()
			f.thawLater(c)
		}
	})
	return errors.Join(errs...)
}

// thawContainer thaws one container and forgets that it was to be thawed. One
// that has ended needs none.
func (m *Manager) thawContainer(ctx context.Context, c *container) error {
	if !c.get().Frozen {
		return nil
	}
	sup, err := m.supervisor()
	if err != nil {
		return err
	}
	id := c.get().ID
	if err := sup.Resume(ctx, id); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
		return fmt.Errorf("thaw container %s: %w", id, unsaid(err, "resume container "+id))
	}
	return m.changeContainer(c, func(s *containerState) {
		s.Frozen = false
		if s.State == ContainerPaused {
			s.State = ContainerRunning
		}
	})
}

func (m *Manager) thawLater(c *container) {
	id := c.get().ID
	m.background("thaw container "+id, func(ctx context.Context) error {
		if err := acquire(ctx, c.busy); err != nil {
			return err
		}
		defer c.busy.release()
		if _, err := m.findContainer(id); err != nil {
			return nil // it was removed, and must not be recorded again
		}
		return m.thawContainer(ctx, c)
	})
}

// thawAll thaws what a killed agent left frozen.
func (m *Manager) thawAll(ctx context.Context) {
	m.mu.RLock()
	var list []*container
	for _, c := range m.containers {
		if s := c.get(); s.Frozen && s.State != ContainerExited {
			list = append(list, c)
		}
	}
	m.mu.RUnlock()
	forEach(list, func(c *container) {
		ctx, cancel := context.WithTimeout(ctx, m.cfg.RecoveryTimeout)
		defer cancel()
		if err := m.thawContainer(ctx, c); err != nil {
			m.warn(err, "a checkpoint was cut off")
			m.thawLater(c)
		}
	})
}
