package sandbox

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/recorder"
	"github.com/nodeagent/nodeagent/supervisor"
)

// stopping is a stop under way. It belongs to no caller: all who stop the
// container share it, the signal is sent once, and the earliest deadline holds.
type stopping struct {
	// run is the container as it was, and ended is closed when that has ended:
	// one that is kept may run again by then.
	run   *containerState
	ended <-chan struct{}
	// sooner is told when deadline was moved.
	sooner chan struct{}
	// killed is closed when SIGKILL was sent.
	killed chan struct{}

	// mu guards deadline.
	mu       sync.Mutex
	deadline time.Time
	// by is who asked first, and began when; gentle says that SIGKILL is not
	// the first signal.
	by     string
	began  time.Time
	gentle bool
}

// StopContainer sends the container's stop signal, and SIGKILL once timeout
// has passed. An unknown container, and one that does not run, is no error.
// After the kill it waits for a bounded time and then fails with
// context.DeadlineExceeded, while the background goes on. When ctx ends, the
// stop goes on too.
func (m *Manager) StopContainer(ctx context.Context, containerID string, timeout time.Duration) error {
	c, err := m.findContainer(containerID)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop container: %w", err)
	}
	if err := m.stopContainer(ctx, c, timeout); err != nil {
		return fmt.Errorf("stop container %s: %w", c.get().ID, err)
	}
	return nil
}

// stopContainer leaves it to the caller to name the container in the error.
func (m *Manager) stopContainer(ctx context.Context, c *container, timeout time.Duration) error {
	// A start under way is waited for, so that it is not missed.
	if err := acquire(ctx, c.busy); err != nil {
		return err
	}
	state := c.get().State
	c.busy.release()
	if !state.alive() {
		return nil
	}
	if _, err := m.supervisor(); err != nil {
		return err
	}
	if state == ContainerPaused && timeout > 0 {
		// A frozen process hears no signal but the last.
		m.warn(m.ResumeContainer(ctx, c.get().ID), "resume to stop")
	}
	stop := m.beginStop(c, timeout, recorder.Caller(ctx))
	if stop == nil {
		return nil
	}
	select {
	case <-stop.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("its stop goes on: %w", ctx.Err())
	case <-stop.killed:
	}
	timer := time.NewTimer(m.cfg.KillWait)
	defer timer.Stop()
	select {
	case <-stop.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("killed, and still there: %w", ctx.Err())
	case <-timer.C:
		return fmt.Errorf("killed, and still there after %s: %w", m.cfg.KillWait, context.DeadlineExceeded)
	}
}

// beginStop begins a stop, or moves the deadline of the one under way; nil says
// that the container has ended.
func (m *Manager) beginStop(c *container, timeout time.Duration, by string) *stopping {
	deadline := time.Now().Add(max(timeout, 0))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.get().State == ContainerExited {
		// Nobody would take this stop away again.
		return nil
	}
	if c.stop != nil {
		c.stop.hurry(deadline)
		return c.stop
	}
	stop := &stopping{
		run: c.get(), ended: c.endLocked(),
		sooner: make(chan struct{}, 1), killed: make(chan struct{}), deadline: deadline, by: by, began: time.Now(), gentle: timeout > 0,
	}
	c.stop = stop
	m.spawn(func() { m.driveStop(c, stop) })
	return stop
}

// hurry moves the deadline, never to a later time.
func (s *stopping) hurry(deadline time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !deadline.Before(s.deadline) {
		return
	}
	s.deadline = deadline
	select {
	case s.sooner <- struct{}{}:
	default:
	}
}

// left is the time to the deadline.
func (s *stopping) left() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Until(s.deadline)
}

// driveStop sees a stop through until the container has ended.
func (m *Manager) driveStop(c *container, stop *stopping) {
	if stop.gentle {
		sig, err := parseSignal(stop.run.StopSignal)
		if err != nil {
			sig = syscall.SIGTERM
		}
		m.signal(c, stop, sig)
	}
	for left := stop.left(); left > 0; left = stop.left() {
		if m.pause(left, stop.ended, stop.sooner) {
			return
		}
	}
	m.signal(c, stop, syscall.SIGKILL)
	close(stop.killed)
	for wait := time.Second; !m.pause(wait, stop.ended, nil); wait = min(2*wait, time.Minute) {
		m.log.WithField("blocked", strings.Join(m.hanging(stop.run.CgroupPath), "; ")).
			Warnf("container %s was killed and is still there after %s", stop.run.ID, time.Since(stop.began).Round(time.Second))
		m.signal(c, stop, syscall.SIGKILL)
		ctx, cancel := context.WithTimeout(m.ctx, m.cfg.OperationTimeout)
		m.warn(m.findExits(ctx), "look for missed exits")
		cancel()
	}
}

// pause waits for d or until woken, and reports whether the waiting is over
// because the container ended or the agent stops.
func (m *Manager) pause(d time.Duration, ended <-chan struct{}, woken <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ended:
		return true
	case <-m.ctx.Done():
		return true
	case <-woken:
	case <-timer.C:
	}
	select {
	case <-ended: // just as the time was over
		return true
	default:
		return false
	}
}

// signalTimeout bounds one call to the supervisor in the background.
const signalTimeout = 10 * time.Second

// signal sends a signal from the background, SIGKILL to all processes. A
// container that the supervisor does not know has ended, without anybody
// seeing how.
func (m *Manager) signal(c *container, stop *stopping, sig syscall.Signal) {
	sup, err := m.supervisor()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(m.ctx, signalTimeout)
	defer cancel()
	at := time.Now()
	err = sup.Signal(ctx, stop.run.ID, sig, sig == syscall.SIGKILL)
	m.noteSignal(stop.run, sig, at, stop.by, err)
	if errdefs.IsNotFound(err) {
		err = m.runEnded(ctx, c, stop.run, supervisor.Exit{Code: unknownCode, Reason: reasonLost})
	}
	if err != nil {
		m.log.WithError(err).Warnf("send %s to container %s", signalName(sig), stop.run.ID)
	}
}
