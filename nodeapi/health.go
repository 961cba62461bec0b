package nodeapi

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// What a health check has where nobody says otherwise; docker's.
const (
	healthInterval      = 30 * time.Second
	healthTimeout       = 30 * time.Second
	healthStartInterval = 5 * time.Second
	healthRetries       = 3
)

const (
	// maxHealthLog is how many runs are kept, maxHealthOutput how much of
	// the output of each, in bytes.
	maxHealthLog    = 5
	maxHealthOutput = 4096
	// timedOutCode is the exit code of a run that took too long or could
	// not be made.
	timedOutCode = -1
)

// The words of health.
const (
	healthStarting  = "starting"
	healthHealthy   = "healthy"
	healthUnhealthy = "unhealthy"
)

// health is the checking of one container that runs.
type health struct {
	check  *nodev1.HealthCheck
	cancel context.CancelFunc
	begun  time.Time

	// mu guards the fields below.
	mu     sync.Mutex
	status string
	streak int64
	log    []*nodev1.HealthLog
}

// validateHealth refuses a check that cannot be right.
func validateHealth(spec *nodev1.ContainerSpec) error {
	h := spec.GetHealth()
	if test := h.GetTest(); len(test) > 0 {
		switch test[0] {
		case "NONE":
		case "CMD", "CMD-SHELL":
			if len(test) < 2 {
				return failf(errdefs.ErrInvalidArgument, "healthcheck needs a command")
			}
		default:
			return failf(errdefs.ErrInvalidArgument, "unknown type in health check: %s", test[0])
		}
	}
	for name, d := range map[string]*durationpb.Duration{
		"Interval": h.GetInterval(), "Timeout": h.GetTimeout(), "StartPeriod": h.GetStartPeriod(), "StartInterval": h.GetStartInterval(),
	} {
		if d != nil && d.AsDuration() != 0 && d.AsDuration() < time.Millisecond {
			return failf(errdefs.ErrInvalidArgument, "%s in Healthcheck cannot be less than 1ms", name)
		}
	}
	if h.GetRetries() < 0 {
		return failf(errdefs.ErrInvalidArgument, "Retries in Healthcheck cannot be negative")
	}
	return nil
}

// hasCheck says whether there is something to run.
func hasCheck(h *nodev1.HealthCheck) bool {
	return len(h.GetTest()) > 1 && h.GetTest()[0] != "NONE"
}

// mergeHealth completes a person's check with the image's, field by field.
func mergeHealth(own, image *nodev1.HealthCheck) *nodev1.HealthCheck {
	switch {
	case own == nil:
		return image
	case image == nil:
		return own
	}
	out := &nodev1.HealthCheck{
		Test: own.GetTest(), Interval: own.GetInterval(), Timeout: own.GetTimeout(),
		StartPeriod: own.GetStartPeriod(), StartInterval: own.GetStartInterval(), Retries: own.GetRetries(),
	}
	if len(out.Test) == 0 {
		out.Test = image.GetTest()
	}
	for _, d := range []struct{ to, from **durationpb.Duration }{
		{&out.Interval, &image.Interval}, {&out.Timeout, &image.Timeout},
		{&out.StartPeriod, &image.StartPeriod}, {&out.StartInterval, &image.StartInterval},
	} {
		if *d.to == nil {
			*d.to = *d.from
		}
	}
	if out.Retries == 0 {
		out.Retries = image.GetRetries()
	}
	return out
}

// watchHealth begins to check a container that runs, where it has a check, or
// goes on where an earlier agent ended. Only upkeep calls it.
func (s *Server) watchHealth(c sandbox.Container) {
	check := s.specOf(c).GetHealth()
	if !hasCheck(check) || !running(c) {
		return
	}
	if h := s.healthOf(c.ID); h != nil && h.begun.Equal(c.StartedAt) {
		return
	}
	ctx, cancel := context.WithCancel(s.life)
	h := &health{check: check, cancel: cancel, begun: c.StartedAt, status: healthStarting}
	s.restoreHealth(c, h)
	s.mu.Lock()
	k := s.kept(c.ID)
	if k.health != nil {
		k.health.cancel()
	}
	k.health = h
	s.mu.Unlock()
	if !s.goBackground(func(context.Context) { s.checkHealth(ctx, c, h) }) {
		cancel()
	}
}

// endHealth ends the checking of a container.
func (s *Server) endHealth(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.keeps[id]; k != nil && k.health != nil {
		k.health.cancel()
	}
}

// healthOf is the last checking of a container; nil when there was none.
func (s *Server) healthOf(id string) *health {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.keeps[id]; k != nil {
		return k.health
	}
	return nil
}

// state is what is known of a container's health. A nil one knows nothing.
func (h *health) state() (status string, streak int64, log []*nodev1.HealthLog) {
	if h == nil {
		return "", 0, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.status, h.streak, append([]*nodev1.HealthLog(nil), h.log...)
}

// checkHealth runs the check again and again until ctx is done.
func (s *Server) checkHealth(ctx context.Context, c sandbox.Container, h *health) {
	defer h.cancel()
	timer := time.NewTimer(h.firstPause(time.Now()))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if now, err := s.sandboxes.Container(c.ID); err != nil {
			return
		} else if now.State == sandbox.ContainerRunning {
			run := s.runCheck(ctx, c, h.check)
			if ctx.Err() != nil || !s.runsOn(c.ID, h) {
				return // it failed with what it was to check
			}
			status, changed := h.add(run)
			s.keepHealth(c, h)
			if changed {
				s.emitContainer("health_status: "+status, c)
			}
		}
		timer.Reset(h.pause(time.Now()))
	}
}

// runsOn says whether a container is still in the run that is checked.
func (s *Server) runsOn(id string, h *health) bool {
	now, err := s.sandboxes.Container(id)
	return err == nil && running(now) && now.StartedAt.Equal(h.begun)
}

// firstPause is how long it is to the first run of this agent.
func (h *health) firstPause(now time.Time) time.Duration {
	pause := h.pause(now)
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.log) == 0 {
		return pause
	}
	past := now.Sub(h.log[len(h.log)-1].GetEnd().AsTime())
	return min(max(pause-past, 0), pause)
}

// pause is how long it is to the next run.
func (h *health) pause(now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.status == healthStarting && now.Sub(h.begun) < orElse(h.check.GetStartPeriod(), 0) {
		return orElse(h.check.GetStartInterval(), healthStartInterval)
	}
	return orElse(h.check.GetInterval(), healthInterval)
}

// add takes up a run, and says what the health is now and whether it changed.
func (h *health) add(run *nodev1.HealthLog) (status string, changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = append(h.log, run)
	if len(h.log) > maxHealthLog {
		h.log = h.log[len(h.log)-maxHealthLog:]
	}
	before := h.status
	retries := int64(h.check.GetRetries())
	if retries == 0 {
		retries = healthRetries
	}
	inStart := h.status == healthStarting && run.GetStart().AsTime().Sub(h.begun) < orElse(h.check.GetStartPeriod(), 0)
	switch {
	case run.GetExitCode() == 0:
		h.status, h.streak = healthHealthy, 0
	case inStart:
		// It may fail as long as it starts.
	default:
		if h.streak++; h.streak >= retries {
			h.status = healthUnhealthy
		}
	}
	return h.status, h.status != before
}

// runCheck runs a check once.
func (s *Server) runCheck(ctx context.Context, c sandbox.Container, check *nodev1.HealthCheck) *nodev1.HealthLog {
	timeout := orElse(check.GetTimeout(), healthTimeout)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := check.GetTest()[1:]
	if check.GetTest()[0] == "CMD-SHELL" {
		cmd = []string{"/bin/sh", "-c", check.GetTest()[1]}
	}
	out := &boundedBuffer{limit: maxHealthOutput}
	start := time.Now()
	code, err := s.exec(ctx, sandbox.ExecRequest{
		ContainerID: c.ID, Cmd: cmd, Env: s.foreignTerm(ctx, c), IO: sandbox.IO{Stdout: out, Stderr: out},
	})
	run := &nodev1.HealthLog{Start: timestamppb.New(start), End: timestamppb.Now(), ExitCode: int32(code), Output: out.String()}
	switch {
	case timedOut(err):
		run.ExitCode, run.Output = timedOutCode, "Health check exceeded timeout ("+timeout.String()+"): "+run.GetOutput()
	case err != nil:
		run.ExitCode, run.Output = timedOutCode, strings.ToValidUTF8(err.Error(), "\ufffd")
	}
	return run
}

// orElse is a duration, or another where it is unset or zero.
func orElse(d *durationpb.Duration, other time.Duration) time.Duration {
	if d.AsDuration() == 0 {
		return other
	}
	return d.AsDuration()
}

// boundedBuffer keeps the first limit bytes of what is written to it.
type boundedBuffer struct {
	limit int

	mu sync.Mutex // guards b
	b  bytes.Buffer
}

// Write never fails.
func (b *boundedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Write(p[:min(len(p), b.limit-b.b.Len())])
	return len(p), nil
}

// Close does nothing.
func (b *boundedBuffer) Close() error { return nil }

// String is what was kept, as text that protocol buffers can carry.
func (b *boundedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(bytes.ToValidUTF8(b.b.Bytes(), []byte("\ufffd")))
}
