package nodeapi

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
)

// terminal makes a container with a terminal, and starts it.
func (n *node) terminal(name string, env ...string) string {
	n.t.Helper()
	spec := box("sleep")
	spec.Tty, spec.Stdin, spec.Env = true, true, env
	id := n.create(name, spec)
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: name}); err != nil {
		n.t.Fatal(err)
	}
	return id
}

// A process without a terminal does not hear of the container's.
func TestTermIsOfTheTerminal(t *testing.T) {
	n := newNode(t)
	n.terminal("plain")
	n.terminal("own", "TERM=vt100")
	env := func(container string) []string {
		c, err := n.server.find(container)
		if err != nil {
			t.Fatal(err)
		}
		return n.server.foreignTerm(n.ctx, c)
	}
	if got := env("plain"); !slices.Equal(got, []string{"TERM"}) {
		t.Errorf("without a terminal: %q", got)
	}
	if got := env("own"); got != nil {
		t.Errorf("a person's own: %q", got)
	}
	n.images.images[0].Config.Config.Env = []string{"TERM=dumb"}
	defer func() { n.images.images[0].Config.Config.Env = nil }()
	if got := env("plain"); got != nil {
		t.Errorf("the image's: %q", got)
	}
}

// Inspect tells of the processes that run beside a container's own, and of no
// others.
func TestExecIDs(t *testing.T) {
	n := newNode(t)
	n.terminal("c")
	ids := func() []string {
		t.Helper()
		info, err := n.containers.Inspect(n.ctx, &nodev1.InspectRequest{Container: "c"})
		if err != nil {
			t.Fatal(err)
		}
		return info.GetExecIds()
	}
	if got := ids(); got != nil {
		t.Errorf("at first %q", got)
	}
	ctx, leave := context.WithCancel(n.ctx)
	for range 2 {
		stream, err := n.containers.Exec(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&nodev1.ExecRequest{Message: &nodev1.ExecRequest_Start{Start: &nodev1.ExecStart{Container: "c", Command: []string{"sleep"}}}})
	}
	eventually(t, "both are told of", func() bool { return len(ids()) == 2 })
	created, _ := n.told("container exec_start: sleep")
	if slices.Index(created, "container exec_create: sleep") < 0 {
		t.Errorf("events %q", created)
	}
	leave()
	eventually(t, "they are over", func() bool { return ids() == nil })
	if all, _ := n.told("container exec_die"); len(all) == 0 {
		t.Error("their end is not told")
	}
}

// Who leaves a container with the detach keys is told of; who just goes away is
// not.
func TestDetachIsTold(t *testing.T) {
	n := newNode(t)
	n.terminal("c")
	attach := func() (nodev1.Containers_AttachClient, context.CancelFunc) {
		ctx, cancel := context.WithCancel(n.ctx)
		stream, err := n.containers.Attach(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&nodev1.AttachRequest{Message: &nodev1.AttachRequest_Start{Start: &nodev1.AttachStart{Container: "c", Output: true, Stdin: true}}})
		for text := ""; text != "joined"; {
			m, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			text += string(m.GetOutput().GetData())
		}
		return stream, cancel
	}
	_, leave := attach()
	leave()
	stream, cancel := attach()
	defer cancel()
	_ = stream.Send(&nodev1.AttachRequest{Message: &nodev1.AttachRequest_Detach{Detach: true}})
	for {
		m, err := stream.Recv()
		if err != nil {
			break
		}
		if m.GetMessage() != nil && m.GetOutput() == nil {
			t.Errorf("told %v", m)
		}
	}
	all, _ := n.told("container detach")
	if count := strings.Count(strings.Join(all, "\n"), "container detach"); count != 1 {
		t.Errorf("%d were told of: %q", count, all)
	}
	if _, err := n.containers.Pause(n.ctx, &nodev1.PauseRequest{Container: "c"}); err != nil {
		t.Fatal(err)
	}
	_, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: "c"})
	wantError(t, err, codes.FailedPrecondition, "cannot start a paused container")
	_, _, err = n.attach(&nodev1.AttachStart{Container: "c", Output: true}, "")
	wantError(t, err, codes.FailedPrecondition, "You cannot attach to a paused container")
}

// A check that takes too long is said to, however that is found out.
func TestHealthCheckTakesTooLong(t *testing.T) {
	n := newNode(t)
	n.terminal("c")
	c, err := n.server.find("c")
	if err != nil {
		t.Fatal(err)
	}
	run := n.server.runCheck(n.ctx, c, &nodev1.HealthCheck{Test: []string{"CMD", "sleep"}, Timeout: durationpb.New(time.Millisecond)})
	if run.GetExitCode() != timedOutCode || !strings.HasPrefix(run.GetOutput(), "Health check exceeded timeout (1ms)") {
		t.Errorf("got %v", run)
	}
}
