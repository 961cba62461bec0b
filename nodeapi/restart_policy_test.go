package nodeapi

import (
	"testing"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/grpc/codes"
)

func TestWantsRestart(t *testing.T) {
	policy := func(name string, most int64) *nodev1.RestartPolicy {
		return &nodev1.RestartPolicy{Name: name, MaxRetries: most}
	}
	for name, test := range map[string]struct {
		policy   *nodev1.RestartPolicy
		run      runRecord
		code     int
		rebooted bool
		want     bool
	}{
		"none":                                {policy: nil, code: 1},
		"no":                                  {policy: policy("no", 0), code: 1},
		"always":                              {policy: policy("always", 0), want: true},
		"always, stopped":                     {policy: policy("always", 0), run: runRecord{Stopped: true}},
		"always, stopped before a reboot":     {policy: policy("always", 0), run: runRecord{Stopped: true}, rebooted: true, want: true},
		"unless-stopped":                      {policy: policy("unless-stopped", 0), want: true},
		"unless-stopped, stopped, a reboot":   {policy: policy("unless-stopped", 0), run: runRecord{Stopped: true}, rebooted: true},
		"on-failure, success":                 {policy: policy("on-failure", 0)},
		"on-failure, failure":                 {policy: policy("on-failure", 0), code: 1, run: runRecord{Restarts: 99}, want: true},
		"on-failure, one try left":            {policy: policy("on-failure", 3), code: 1, run: runRecord{Restarts: 2}, want: true},
		"on-failure, no try left":             {policy: policy("on-failure", 3), code: 1, run: runRecord{Restarts: 3}},
		"on-failure, ended by a reboot (255)": {policy: policy("on-failure", 0), code: 255, rebooted: true, want: true},
	} {
		if got := wantsRestart(test.policy, test.run, test.code, test.rebooted); got != test.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func restarts(name string, most int64, command ...string) *nodev1.ContainerSpec {
	spec := box(command...)
	spec.Restart = &nodev1.RestartPolicy{Name: name, MaxRetries: most}
	return spec
}

// status is a container's state and how often it was restarted.
func (n *node) status(name string) (string, int64) {
	n.t.Helper()
	info, err := n.containers.Inspect(n.ctx, &nodev1.InspectRequest{Container: name})
	if err != nil {
		n.t.Fatal(err)
	}
	return info.GetContainer().GetState(), info.GetContainer().GetRestartCount()
}

func TestRestartsAreCounted(t *testing.T) {
	n := newNode(t)
	n.create("fails", restarts("on-failure", 2, "exit", "3"))
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: "fails"}); err != nil {
		t.Fatal(err)
	}
	if resp, err := n.containers.Wait(n.ctx, &nodev1.WaitRequest{Container: "fails"}); err != nil || resp.GetExitCode() != 3 {
		t.Errorf("%v %v", resp, err)
	}
	if state, count := n.status("fails"); state != "exited" || count != 2 {
		t.Errorf("it is %s after %d restarts", state, count)
	}
	n.sandboxes.mu.Lock()
	starts := n.sandboxes.starts
	n.sandboxes.mu.Unlock()
	if starts != 3 {
		t.Errorf("%d starts", starts)
	}
	if n.server.gaveUp(must(t, n.server, "fails")) != 2 {
		t.Error("nobody is told that it gave up")
	}
	// A person's start counts anew.
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: "fails"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is started three times more", func() bool {
		n.sandboxes.mu.Lock()
		defer n.sandboxes.mu.Unlock()
		return n.sandboxes.starts == 6
	})
}

func TestStopEndsRestarts(t *testing.T) {
	n := newNode(t)
	n.create("loops", restarts("always", 0, "exit", "0"))
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: "loops"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it waits to be restarted", func() bool {
		state, count := n.status("loops")
		return state == "restarting" && count >= 2
	})
	_, err := n.containers.Remove(n.ctx, &nodev1.RemoveRequest{Container: "loops"})
	wantError(t, err, codes.FailedPrecondition, "container is restarting")
	if _, err := n.containers.Stop(n.ctx, &nodev1.StopRequest{Container: "loops"}); err != nil {
		t.Fatal(err)
	}
	state, count := n.status("loops")
	if state != "exited" {
		t.Errorf("stopped, it is %s", state)
	}
	// Not even by the next agent.
	n.stop()
	n.serve()
	if state, again := n.status("loops"); state != "exited" || again != count {
		t.Errorf("later it is %s, %d restarts", state, again)
	}
}

func TestRestartsSurviveTheAgent(t *testing.T) {
	n := newNode(t)
	id := n.create("kept", restarts("unless-stopped", 0, "sleep"))
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: id}); err != nil {
		t.Fatal(err)
	}
	n.stop()
	if err := n.sandboxes.KillContainer(n.ctx, id, "SIGTERM"); err != nil {
		t.Fatal(err)
	}
	n.serve()
	eventually(t, "it runs again", func() bool {
		state, count := n.status("kept")
		return state == "running" && count == 1
	})
	// Taking the policy away holds too.
	if _, err := n.containers.Update(n.ctx, &nodev1.UpdateRequest{Container: "kept", Restart: &nodev1.RestartPolicy{Name: "no"}}); err != nil {
		t.Fatal(err)
	}
	n.stop()
	if err := n.sandboxes.KillContainer(n.ctx, id, "SIGTERM"); err != nil {
		t.Fatal(err)
	}
	n.serve()
	if state, _ := n.status("kept"); state != "exited" {
		t.Errorf("without a policy it is %s", state)
	}
}

func TestRestartPauses(t *testing.T) {
	n := newNode(t)
	id := n.create("loops", restarts("always", 0, "exit", "0"))
	begun := time.Now()
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: id}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is restarted", func() bool { _, count := n.status("loops"); return count == 3 })
	if took := time.Since(begun); took < firstPause+2*firstPause+4*firstPause {
		t.Errorf("three restarts took %s", took)
	}
	// The next agent does not begin anew with the shortest.
	n.stop()
	n.serve()
	eventually(t, "it waits for longer", func() bool {
		n.server.mu.Lock()
		defer n.server.mu.Unlock()
		return n.server.kept(id).pause >= 16*firstPause
	})
	if _, err := n.containers.Remove(n.ctx, &nodev1.RemoveRequest{Container: "loops", Force: true}); err != nil {
		t.Fatal(err)
	}
	n.noFiles()
}

// A start that fails is no run that makes the next pause short again, however long
// the run before it was.
func TestPausesGrowWhileStartsFail(t *testing.T) {
	began := time.Now()
	c := sandbox.Container{StartedAt: began, FinishedAt: began.Add(time.Hour)}
	k := &keep{pause: 8 * firstPause}
	pauses := []time.Duration{k.nextPause(c), k.nextPause(c)} // not even begun
	c.FinishedAt, c.Reason = began.Add(2*time.Hour), reasonStartError
	for range 12 {
		pauses = append(pauses, k.nextPause(c))
	}
	want := firstPause
	for i, pause := range pauses {
		if pause != want {
			t.Errorf("pause %d is %s, not %s", i, pause, want)
		}
		want = min(2*want, lastPause)
	}
	c.StartedAt, c.Reason = c.FinishedAt, ""
	if c.FinishedAt = c.StartedAt.Add(steadyRun); k.nextPause(c) != firstPause {
		t.Error("a run of its own is not counted")
	}
}

// A person's restart that an agent was killed over is finished by the next one,
// whatever the policy; one that had not stopped the container yet is forgotten.
func TestRestartGoesOn(t *testing.T) {
	n := newNode(t)
	for _, name := range []string{"stopped", "running"} {
		id := n.create(name, box("sleep"))
		if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: name}); err != nil {
			t.Fatal(err)
		}
		c, err := n.server.find(id)
		if err != nil {
			t.Fatal(err)
		}
		if name == "stopped" {
			if _, err := n.containers.Stop(n.ctx, &nodev1.StopRequest{Container: name}); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.server.changeRun(c, func(r *runRecord) { r.Stopped, r.Resume = true, true }); err != nil {
			t.Fatal(err)
		}
	}
	n.stop()
	n.serve()
	eventually(t, "it runs", func() bool { state, _ := n.status("stopped"); return state == "running" })
	for _, name := range []string{"stopped", "running"} {
		pod, err := n.sandboxes.Pod(must(t, n.server, name).PodID)
		if err != nil {
			t.Fatal(err)
		}
		if run, err := n.server.runOf(podKey(pod)); err != nil || run.Stopped || run.Resume {
			t.Errorf("%s: %+v %v", name, run, err)
		}
		if _, err := n.containers.Restart(n.ctx, &nodev1.RestartRequest{Container: name}); err != nil {
			t.Error(err)
		}
		if run, err := n.server.runOf(podKey(pod)); err != nil || run.Resume {
			t.Errorf("%s: %+v %v", name, run, err)
		}
	}
}

// must finds a container.
func must(t *testing.T, s *Server, name string) sandbox.Container {
	t.Helper()
	c, err := s.find(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Whoever comes second to start a container has what they wanted.
func TestStartedTwiceAtOnce(t *testing.T) {
	n := newNode(t)
	spec := box("sleep")
	spec.AutoRemove = true
	id := n.create("c", spec)
	c, err := n.server.find(id)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := n.server.start(n.ctx, c, nil); err != nil {
			t.Error(err)
		}
	}
	if _, err := n.server.start(n.ctx, c, &sandbox.IO{}); err == nil {
		t.Error("streams are joined to nothing")
	}
	if state, _ := n.status("c"); state != "running" {
		t.Errorf("it is %s", state)
	}
}

func TestWrongPoliciesAreRefused(t *testing.T) {
	n := newNode(t)
	for words, spec := range map[string]*nodev1.ContainerSpec{
		"unknown policy 'often'":         restarts("often", 0, "sleep"),
		"can only be used with":          restarts("always", 3, "sleep"),
		"retry count cannot be negative": restarts("on-failure", -1, "sleep"),
	} {
		_, err := n.containers.Create(n.ctx, &nodev1.CreateRequest{Spec: spec})
		wantError(t, err, codes.InvalidArgument, words)
	}
	both := restarts("always", 0, "sleep")
	both.AutoRemove = true
	_, err := n.containers.Create(n.ctx, &nodev1.CreateRequest{Spec: both})
	wantError(t, err, codes.InvalidArgument, "can't create 'AutoRemove' container with restart policy")
}
