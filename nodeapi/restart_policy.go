package nodeapi

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
)

// The restart policies.
const (
	restartNo            = "no"
	restartOnFailure     = "on-failure"
	restartAlways        = "always"
	restartUnlessStopped = "unless-stopped"
)

// The pauses before restarts are docker's: each is twice the one before, until
// the container has run for a while.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = time.Minute
	steadyRun  = 10 * time.Second
)

// restart is a start that is to come.
type restart struct {
	cancel context.CancelFunc
	// next is how long the one after it is to wait.
	next time.Duration
}

// validateRestart refuses a policy that is not known.
func validateRestart(spec *nodev1.ContainerSpec) error {
	policy := spec.GetRestart()
	switch policy.GetName() {
	case "", restartNo:
		return nil
	case restartAlways, restartUnlessStopped:
		if policy.GetMaxRetries() != 0 {
			return failf(errdefs.ErrInvalidArgument, "invalid restart policy: maximum retry count can only be used with 'on-failure'")
		}
	case restartOnFailure:
		if policy.GetMaxRetries() < 0 {
			return failf(errdefs.ErrInvalidArgument, "invalid restart policy: maximum retry count cannot be negative")
		}
	default:
		return failf(errdefs.ErrInvalidArgument, "invalid restart policy: unknown policy '%s'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'", policy.GetName())
	}
	if spec.GetAutoRemove() {
		return failf(errdefs.ErrInvalidArgument, "can't create 'AutoRemove' container with restart policy")
	}
	return nil
}

// wantsRestart says whether a container that ended is to be started again.
// rebooted says that the machine was since it was last started: what a person
// stopped is then started again by "always" alone, as docker does it.
func wantsRestart(policy *nodev1.RestartPolicy, run runRecord, exitCode int, rebooted bool) bool {
	switch policy.GetName() {
	case restartAlways:
		return !run.Stopped || rebooted
	case restartUnlessStopped:
		return !run.Stopped
	case restartOnFailure:
		return !run.Stopped && exitCode != 0 && (policy.GetMaxRetries() == 0 || run.Restarts < policy.GetMaxRetries())
	}
	return false
}

// restartLater sees to it that a container which ended is started again where
// its policy says so, after a pause; false when it does not. first is the
// first look of this agent, which finds ends of another boot.
func (s *Server) restartLater(c sandbox.Container, first bool) bool {
	pod, err := s.sandboxes.Pod(c.PodID)
	if err != nil || c.StartedAt.IsZero() {
		return false
	}
	run, err := s.runOf(podKey(pod))
	if err != nil {
		s.warnOf(c, err, "read how it is to run")
		return false
	}
	rebooted := first && run.BootID != "" && run.BootID != s.bootID
	if !wantsRestart(s.spec(pod).GetRestart(), run, c.ExitCode, rebooted) && !(first && run.Resume) {
		return false
	}
	s.mu.Lock()
	k := s.kept(c.ID)
	if k.restart != nil {
		s.mu.Unlock()
		return true
	}
	if k.pause == 0 {
		k.pause = min(run.Pause, lastPause) // an earlier agent's
	}
	pause := k.nextPause(c)
	if first {
		// It has waited while no agent ran.
		pause = min(max(pause-time.Since(c.FinishedAt), 0), pause)
	}
	ctx, cancel := context.WithCancel(s.life)
	mine := &restart{cancel: cancel, next: k.pause}
	k.restart = mine
	s.mu.Unlock()
	if !s.goBackground(func(context.Context) { s.restartAfter(ctx, c, mine, pause) }) {
		cancel()
	}
	return true
}

// nextPause is how long the restart after an end is to wait, and makes the one
// after it wait for longer. A run that was long enough makes it short again, once:
// a start that failed was no run.
func (k *keep) nextPause(c sandbox.Container) time.Duration {
	steady := c.Reason != reasonStartError && c.FinishedAt.Sub(c.StartedAt) >= steadyRun && !k.paused.Equal(c.FinishedAt)
	if k.pause <= 0 || steady {
		k.pause = firstPause
	}
	k.paused = c.FinishedAt
	pause := k.pause
	k.pause = min(2*pause, lastPause)
	return pause
}

// restartAfter starts a container after a pause, unless that is called off.
func (s *Server) restartAfter(ctx context.Context, c sandbox.Container, mine *restart, pause time.Duration) {
	defer mine.cancel()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
	}
	if !s.isRestart(c.ID, mine) {
		return
	}
	err := s.changeRun(c, func(r *runRecord) {
		r.Restarts, r.Pause, r.BootID = r.Restarts+1, mine.next, s.bootID
		r.Stopped, r.Resume = r.Stopped && !r.Resume, false
	})
	if err == nil {
		_, err = s.start(ctx, c, nil)
	}
	if err == nil {
		err = s.stopAgain(ctx, c)
	}
	s.mu.Lock()
	if k := s.keeps[c.ID]; k != nil && k.restart == mine {
		k.restart = nil
	}
	s.mu.Unlock()
	if err != nil && ctx.Err() == nil && !errdefs.IsNotFound(err) {
		s.warnOf(c, err, "restart")
	}
	// It may have ended meanwhile, or not have begun.
	if now, gone := s.sandboxes.Container(c.ID); gone == nil && now.State == sandbox.ContainerExited {
		s.restartLater(now, false)
	}
}

// isRestart says whether a start that is to come was not called off.
func (s *Server) isRestart(id string, mine *restart) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keeps[id] != nil && s.keeps[id].restart == mine
}

// stopAgain stops a container that a person stopped too late to call its
// restart off, and too early to find it running.
func (s *Server) stopAgain(ctx context.Context, c sandbox.Container) error {
	pod, err := s.sandboxes.Pod(c.PodID)
	if err != nil {
		return err
	}
	if run, err := s.runOf(podKey(pod)); err != nil || !run.Stopped {
		return err
	}
	return s.sandboxes.StopContainer(ctx, c.ID, stopTimeoutOf(s.spec(pod)))
}

// cancelRestart calls off a start that is to come, and says whether there was
// one.
func (s *Server) cancelRestart(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keeps[id]
	if k == nil || k.restart == nil {
		return false
	}
	k.restart.cancel()
	k.restart = nil
	return true
}

// restarting says whether a container waits to be started again. One that has
// just ended does, before anybody has acted on its end: it is never seen as
// exited in between.
func (s *Server) restarting(c sandbox.Container) bool {
	if c.State != sandbox.ContainerExited || c.StartedAt.IsZero() {
		return false
	}
	s.mu.Lock()
	pending := s.keeps[c.ID] != nil && s.keeps[c.ID].restart != nil
	s.mu.Unlock()
	if pending {
		return true
	}
	pod, err := s.sandboxes.Pod(c.PodID)
	if err != nil || s.spec(pod).GetRestart().GetName() == "" {
		return false
	}
	run, err := s.runOf(podKey(pod))
	return err == nil && wantsRestart(s.spec(pod).GetRestart(), run, c.ExitCode, false)
}

// gaveUp is after how many restarts a policy starts a container no more that
// fails; zero where it is not that.
func (s *Server) gaveUp(c sandbox.Container) int {
	pod, err := s.sandboxes.Pod(c.PodID)
	policy := s.spec(pod).GetRestart()
	if err != nil || c.State != sandbox.ContainerExited || c.ExitCode == 0 || policy.GetName() != restartOnFailure {
		return 0
	}
	run, err := s.runOf(podKey(pod))
	if err != nil || run.Stopped || policy.GetMaxRetries() == 0 || run.Restarts < policy.GetMaxRetries() {
		return 0
	}
	return int(run.Restarts)
}

// hasPolicy says whether a container may be started again by itself.
func hasPolicy(spec *nodev1.ContainerSpec) bool {
	name := spec.GetRestart().GetName()
	return name != "" && name != restartNo
}

// stoppedByPerson keeps a container's policy from starting it again. Without
// one it must not be a full disk that keeps a person from stopping it.
func (s *Server) stoppedByPerson(c sandbox.Container) error {
	err := s.changeRun(c, func(r *runRecord) { r.Stopped = true })
	s.cancelRestart(c.ID)
	if !hasPolicy(s.specOf(c)) {
		s.warnOf(c, err, "note that it was stopped")
		return nil
	}
	return err
}

// forgetResume makes a container's policy hold again that an earlier agent was
// killed over before it stopped it to start it anew.
func (s *Server) forgetResume(c sandbox.Container) {
	s.warnOf(c, s.changeRun(c, func(r *runRecord) { r.Stopped, r.Resume = r.Stopped && !r.Resume, false }), "forget its restart")
}

// startedByPerson makes a container's policy hold again.
func (s *Server) startedByPerson(c sandbox.Container) error {
	s.cancelRestart(c.ID)
	s.mu.Lock()
	if k := s.keeps[c.ID]; k != nil {
		k.pause = 0
	}
	s.mu.Unlock()
	kept := hasPolicy(s.specOf(c))
	return s.changeRun(c, func(r *runRecord) {
		r.Stopped, r.Restarts, r.Pause = false, 0, 0
		if kept {
			r.BootID = s.bootID // without one nobody asks, and most are run once
		}
	})
}
