package cve

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// quick is how long a call may take that has nothing to do with what hangs.
const quick = 5 * time.Second

// A container whose processes not even SIGKILL ends: to stop it takes no longer than the caller wants to wait, all else
// goes on, and once the kernel lets go it is stopped and can be removed.
func TestContainersThatCannotBeKilled(t *testing.T) {
	n := newNode(t)
	hung := newHung(t)
	config := n.podConfig()
	pod := n.RunPod(config)
	var ids []string
	for i := range 3 {
		ctr := pods.Shell(fmt.Sprintf("hung-%d", i), fmt.Sprintf("exec stat /hung/file-%d", i))
		ctr.Mounts = []*runtimeapi.Mount{volume(hung.dir, "/hung")}
		id := n.Started(pod, config, ctr)
		pid := n.pid(id)
		testenv.Eventually(t, eventLimit, "the container hangs", func() error {
			if stack := process(t, pid, "wchan"); !strings.Contains(stack, "fuse") && !strings.Contains(stack, "request_wait") {
				return fmt.Errorf("it waits in %q", stack)
			}
			return nil
		})
		ids = append(ids, id)
	}
	var stops sync.WaitGroup
	for _, id := range ids {
		stops.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			begin := time.Now()
			_, err := n.Runtime().StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id})
			if status.Code(err) != codes.DeadlineExceeded || time.Since(begin) > quick {
				t.Errorf("stopped after %v: %v", time.Since(begin), err)
			}
		})
	}
	n.goesOn()
	stops.Wait()
	n.goesOn()
	n.explained(ids[0], `("/hung/file-0") in `)
	hung.release()
	for _, id := range ids {
		if state := n.Ended(id); state.ExitCode != 137 {
			t.Errorf("exit code %d", state.ExitCode)
		}
	}
}

// explained checks that people are told in what a container hangs that cannot be killed.
func (n *node) explained(id, where string) {
	n.t.Helper()
	testenv.Eventually(n.t, eventLimit, "nodectl why says where it hangs", func() error {
		out := strings.Join(strings.Fields(n.Nodectl("why", id).Stdout), " ")
		if !strings.Contains(out, "Right now: it is being stopped, and not even SIGKILL, sent ") || !strings.Contains(out, where) {
			return fmt.Errorf("why: %s", out)
		}
		return nil
	})
	if out := n.Nodectl("ops"); !strings.Contains(out.Stdout, "stop container") || !strings.Contains(out.Stdout, "SIGKILL sent") || !strings.Contains(out.Stdout, where) {
		n.t.Errorf("ops: %s%s", out.Stdout, out.Stderr)
	}
}

// goesOn checks that lists are answered and pods come and go.
func (n *node) goesOn() {
	n.t.Helper()
	begin := time.Now()
	for range 50 {
		ctx, cancel := context.WithTimeout(context.Background(), quick)
		_, err := n.Runtime().ListContainers(ctx, &runtimeapi.ListContainersRequest{})
		n.Must("list containers", err)
		_, err = n.Runtime().ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
		n.Must("list pods", err)
		cancel()
	}
	if took := time.Since(begin) / 100; took > 100*time.Millisecond {
		n.t.Errorf("a list takes %v", took)
	}
	ctx, cancel := context.WithTimeout(context.Background(), quick)
	defer cancel()
	_, err := n.Runtime().ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
	n.Must("list container stats", err)
	begin = time.Now()
	id, _ := n.running(idle("other"))
	n.Exec(id, "true")
	n.StopContainer(id, 0)
	if took := time.Since(begin); took > quick {
		n.t.Errorf("another pod took %v", took)
	}
}

// A host path that hangs: the call ends with its deadline and says where it is, calls made again join the first, others
// are not held up, and once it answers nothing is left.
func TestHostPathThatHangs(t *testing.T) {
	n := newNode(t)
	hung := newHung(t)
	config := n.podConfig()
	pod := n.RunPod(config)
	ctr := idle("waiting")
	ctr.Mounts = []*runtimeapi.Mount{volume(filepath.Join(hung.dir, "sub"), "/sub")}
	create := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := n.Runtime().CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: ctr, SandboxConfig: config})
		return err
	}
	begin := time.Now()
	var calls sync.WaitGroup
	for range 10 {
		calls.Go(func() {
			if err := create(); status.Code(err) != codes.DeadlineExceeded || time.Since(begin) > quick {
				t.Errorf("after %v: %v", time.Since(begin), err)
			}
		})
	}
	n.goesOn()
	calls.Wait()
	// The client may give up a moment before the answer comes; the agent's log has it.
	testenv.Eventually(t, eventLimit, "the agent tells where it is stuck", func() error {
		log, err := os.ReadFile(n.LogPath)
		if err != nil || !strings.Contains(string(log), `still at stage \"mounts\"`) {
			return fmt.Errorf("it does not: %v", err)
		}
		return nil
	})
	hung.release()
	testenv.Eventually(t, eventLimit, "the create ends", func() error {
		if err := create(); status.Code(err) == codes.DeadlineExceeded {
			return err
		}
		return nil
	})
	ctx, cancel := n.Context()
	defer cancel()
	left, err := n.Runtime().ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: pod}})
	n.Must("list containers", err)
	if len(left.Containers) != 0 {
		t.Errorf("left: %v", left.Containers)
	}
}

// A supervisor that stands still holds up what needs it, each call as long as its caller wants to wait, and nothing else;
// the node is not ready meanwhile. What was asked for is done once it goes on.
func TestSupervisorThatStandsStill(t *testing.T) {
	n := newNode(t)
	config := n.podConfig()
	pod := n.RunPod(config)
	id := n.Started(pod, config, idle("main"))
	supervisor := n.Supervisor()
	goOn := func() { n.Must("continue the supervisor", syscall.Kill(supervisor, syscall.SIGCONT)) }
	defer goOn()
	n.Must("stop the supervisor", syscall.Kill(supervisor, syscall.SIGSTOP))

	within := func(limit time.Duration, what string, call func(context.Context) error) error {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		begin := time.Now()
		err := call(ctx)
		if took := time.Since(begin); took > limit+quick {
			t.Errorf("%s took %v", what, took)
		}
		return err
	}
	for what, call := range map[string]func(context.Context) error{
		"list": func(ctx context.Context) error {
			_, err := n.Runtime().ListContainers(ctx, &runtimeapi.ListContainersRequest{})
			return err
		},
		"status": func(ctx context.Context) error {
			_, err := n.Runtime().PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
			return err
		},
		"statistics": func(ctx context.Context) error {
			_, err := n.Runtime().ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
			return err
		},
		"metrics": func(ctx context.Context) error {
			_, err := n.Runtime().ListPodSandboxMetrics(ctx, &runtimeapi.ListPodSandboxMetricsRequest{})
			return err
		},
	} {
		n.Must(what, within(quick, what, call))
	}
	var calls sync.WaitGroup
	for what, call := range map[string]func(context.Context) error{
		"exec": func(ctx context.Context) error {
			_, err := n.Runtime().ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"true"}})
			return err
		},
		"start": func(ctx context.Context) error {
			other, err := n.CreateError(pod, config, idle("other"))
			if err == nil {
				_, err = n.Runtime().StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: other})
			}
			return err
		},
		"stop": func(ctx context.Context) error {
			_, err := n.Runtime().StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id})
			return err
		},
	} {
		calls.Go(func() {
			if err := within(2*time.Second, what, call); status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	calls.Wait()
	var conditions []*runtimeapi.RuntimeCondition
	n.Must("status", within(callLimit, "status", func(ctx context.Context) error {
		answer, err := n.Runtime().Status(ctx, &runtimeapi.StatusRequest{})
		conditions = answer.GetStatus().GetConditions()
		return err
	}))
	if c := conditions[0]; c.Status || c.Reason != "SupervisorNotReady" || !strings.Contains(c.Message, "does not answer") || !conditions[1].Status {
		t.Errorf("the node's conditions are %v", conditions)
	}
	goOn()
	if state := n.Ended(id); state.ExitCode != 137 {
		t.Errorf("exit code %d", state.ExitCode)
	}
	if got := n.Exec(n.Started(pod, config, idle("after")), "echo", "here"); got != "here\n" {
		t.Errorf("%q", got)
	}
}
