package sandbox

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/failpoint"
)

func TestPodLife(t *testing.T) {
	w, m := start(t)
	events, cancel := m.Subscribe()
	defer cancel()
	podID, id := running(t, m)
	if p, err := m.Pod(podID[:8]); err != nil || p.State != PodReady || p.Network == nil || p.PID != 99 {
		t.Errorf("pod %+v, %v", p, err)
	}
	c, err := m.Container(id[:8])
	if err != nil || c.State != ContainerRunning || c.PID != 4242 || c.Args[0] != "/bin/sh" || c.StopSignal != "SIGQUIT" {
		t.Errorf("container %+v, %v", c, err)
	}
	if err := m.StopContainer(t.Context(), id, time.Minute); err != nil {
		t.Fatal(err)
	}
	if c, _ := m.Container(id); c.State != ContainerExited || c.ExitCode != 131 || c.Reason != "Error" {
		t.Errorf("stopped: %+v", c)
	}
	if err := m.StopPod(t.Context(), podID); err != nil {
		t.Fatal(err)
	}
	if p, _ := m.Pod(podID); p.State != PodNotReady || p.Network != nil {
		t.Errorf("stopped: %+v", p)
	}
	for range 2 {
		if err := m.StopPod(t.Context(), podID); err != nil {
			t.Error(err)
		}
		if err := m.RemovePod(t.Context(), podID); err != nil {
			t.Error(err)
		}
	}
	clean(t, w, m)
	var got []string
	for len(events) > 0 {
		got = append(got, string((<-events).Type))
	}
	want := "created started created started stopped stopped deleted deleted"
	if strings.Join(got, " ") != want {
		t.Errorf("events %v, want %s", got, want)
	}
}

// Every step of RunPod fails once, before it and after it; the same call made
// again succeeds, and removing the pod leaves nothing.
func TestRunPodStepFails(t *testing.T) {
	steps := []string{"intent", "directory", "namespaces", "network", "files", "record", "publish"}
	for _, step := range steps {
		for _, when := range []string{"before", "after"} {
			t.Run(step+" "+when, func(t *testing.T) {
				w, m := start(t)
				disable, err := failpoint.Enable("run." + step + "." + when + "=error:1")
				if err != nil {
					t.Fatal(err)
				}
				defer disable()
				if _, err := m.RunPod(t.Context(), podRequest("web")); !errors.Is(err, failpoint.ErrInjected) {
					t.Fatalf("error %v", err)
				}
				if len(m.Pods()) != 0 {
					t.Error("the failed pod is listed")
				}
				clean(t, w, m)
				again(t, w, m)
			})
		}
	}
}

// again runs a pod and removes it.
func again(t *testing.T, w *world, m *Manager) {
	t.Helper()
	id, err := m.RunPod(t.Context(), podRequest("web"))
	if err != nil {
		t.Fatalf("second time: %v", err)
	}
	if err := m.RemovePod(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	clean(t, w, m)
}

// Every mechanism fails, having done half of its work.
func TestRunPodMechanismFails(t *testing.T) {
	for _, call := range []string{"Pin", "Create", "MountShm", "Add", "StartPodInit", "PinPID"} {
		t.Run(call, func(t *testing.T) {
			w, m := start(t)
			boom := errors.New("boom")
			w.setFail(call, boom)
			if _, err := m.RunPod(t.Context(), podRequest("web")); !errors.Is(err, boom) {
				t.Fatalf("error %v", err)
			}
			clean(t, w, m)
			w.setFail(call, nil)
			again(t, w, m)
		})
	}
}

// What cannot be undone at once is undone in the background, and the intent
// stays until then.
func TestRunPodUndoFails(t *testing.T) {
	for _, call := range []string{"Del", "Unpin", "RemoveCgroup", "StopPodInit", "UnmountShm"} {
		t.Run(call, func(t *testing.T) {
			w, m := start(t)
			w.setFail(call, errors.New("not now"))
			w.setFail("Add", errors.New("boom"))
			if _, err := m.RunPod(t.Context(), podRequest("web")); err == nil {
				t.Fatal("no error")
			}
			if ids, _ := m.podRecords.IDs(); len(ids) != 1 {
				t.Errorf("intents %v", ids)
			}
			w.setFail(call, nil)
			w.setFail("Add", nil)
			eventually(t, "undone", func() bool {
				ids, _ := m.podRecords.IDs()
				return len(ids) == 0
			})
			clean(t, w, m)
			again(t, w, m)
		})
	}
}

// Twenty callers of one pod, half of which give up, make one pod.
func TestRunPodJoins(t *testing.T) {
	w, m := start(t)
	release := w.setBlock("Add")
	defer release()
	impatient, giveUp := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	ids, errs := make([]string, 20), make([]error, 20)
	for i := range ids {
		wg.Go(func() {
			ctx := t.Context()
			if i%2 == 0 {
				ctx = impatient
			}
			ids[i], errs[i] = m.RunPod(ctx, podRequest("web"))
		})
	}
	eventually(t, "the network stage", func() bool { return w.count("Add") == 1 })
	giveUp()
	// The impatient have left before the rest goes on.
	if _, err := m.RunPod(impatient, podRequest("web")); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	release()
	wg.Wait()
	if w.count("Add") != 1 || len(m.Pods()) != 1 {
		t.Errorf("%d networks, %d pods", w.count("Add"), len(m.Pods()))
	}
	for i, err := range errs {
		switch {
		case i%2 == 0 && err != nil:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("impatient caller: %v", err)
			}
		case err != nil || ids[i] != m.Pods()[0].ID:
			t.Errorf("caller %d: %q, %v", i, ids[i], err)
		}
	}
	if id, err := m.RunPod(t.Context(), podRequest("web")); err != nil || id != m.Pods()[0].ID {
		t.Errorf("repeated: %q, %v", id, err)
	}
}

func TestRunPodTimeoutNamesTheStage(t *testing.T) {
	w, m := start(t)
	defer w.setBlock("Add")()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for w.count("Add") == 0 && ctx.Err() == nil {
			<-time.After(time.Millisecond)
		}
		cancel()
	}()
	_, err := m.RunPod(ctx, podRequest("web"))
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), `run pod default/web: still at stage "network" for `) {
		t.Errorf("error %v", err)
	}
}

// Closing the Manager cancels operations, which are then undone.
func TestCloseUndoes(t *testing.T) {
	w, m := start(t)
	defer w.setBlock("Add")()
	done := make(chan error, 1)
	go func() {
		_, err := m.RunPod(context.Background(), podRequest("web"))
		done <- err
	}()
	eventually(t, "the network stage", func() bool { return w.count("Add") == 1 })
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	clean(t, w, m)
	if _, err := m.RunPod(t.Context(), podRequest("other")); !errdefs.IsUnavailable(err) {
		t.Errorf("after Close: %v", err)
	}
}

func TestRunPodRefuses(t *testing.T) {
	w, m := start(t)
	options := func(o *runtime.NamespaceOption) func(*RunPodRequest) {
		return func(r *RunPodRequest) {
			r.Config.Linux = &runtime.LinuxPodSandboxConfig{
				SecurityContext: &runtime.LinuxSandboxSecurityContext{NamespaceOptions: o},
			}
		}
	}
	one := []*runtime.IDMapping{{HostId: 1000, Length: 65536}}
	for name, change := range map[string]func(*RunPodRequest){
		"no configuration": func(r *RunPodRequest) { r.Config = nil },
		"no metadata":      func(r *RunPodRequest) { r.Config.Metadata = nil },
		"no owner":         func(r *RunPodRequest) { r.Owner = "" },
		"handler":          func(r *RunPodRequest) { r.Handler = "kata" },
		"hostname":         func(r *RunPodRequest) { r.Config.Hostname = "a b" },
		"long hostname":    func(r *RunPodRequest) { r.Config.Hostname = strings.Repeat("a", 65) },
		"log directory":    func(r *RunPodRequest) { r.Config.LogDirectory = "logs" },
		"dns":              func(r *RunPodRequest) { r.Config.DnsConfig = &runtime.DNSConfig{Servers: []string{"1.1.1.1\nx"}} },
		"port": func(r *RunPodRequest) {
			r.Config.PortMappings = []*runtime.PortMapping{{HostPort: 70000, ContainerPort: 1}}
		},
		"host IP": func(r *RunPodRequest) {
			r.Config.PortMappings = []*runtime.PortMapping{{HostPort: 1, ContainerPort: 1, HostIp: "here"}}
		},
		"target network": options(&runtime.NamespaceOption{Network: runtime.NamespaceMode_TARGET}),
		"target pid":     options(&runtime.NamespaceOption{Pid: runtime.NamespaceMode_TARGET}),
		"no mapping":     options(&runtime.NamespaceOption{UsernsOptions: &runtime.UserNamespace{}}),
		"two mappings": options(&runtime.NamespaceOption{UsernsOptions: &runtime.UserNamespace{
			Uids: append(one, one...), Gids: one,
		}}),
		"container userns": options(&runtime.NamespaceOption{UsernsOptions: &runtime.UserNamespace{
			Mode: runtime.NamespaceMode_CONTAINER, Uids: one, Gids: one,
		}}),
		"group without user": func(r *RunPodRequest) {
			r.Config.Linux = &runtime.LinuxPodSandboxConfig{SecurityContext: &runtime.LinuxSandboxSecurityContext{
				RunAsGroup: &runtime.Int64Value{Value: 1},
			}}
		},
		"sysctl": func(r *RunPodRequest) {
			r.Config.Linux = &runtime.LinuxPodSandboxConfig{Sysctls: map[string]string{"kernel.panic": "1"}}
		},
		"cgroup parent": func(r *RunPodRequest) {
			r.Config.Linux = &runtime.LinuxPodSandboxConfig{CgroupParent: "/a/../../b"}
		},
	} {
		req := podRequest("web")
		change(&req)
		if _, err := m.RunPod(t.Context(), req); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	clean(t, w, m)
}

func TestRunPodOfAnotherConfiguration(t *testing.T) {
	_, m := start(t)
	request := func() RunPodRequest {
		req := podRequest("web")
		req.Config.Hostname = "web"
		return req
	}
	id, err := m.RunPod(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	same := request()
	same.Config.Annotations = map[string]string{"changed": "meanwhile"}
	same.Config.Linux = &runtime.LinuxPodSandboxConfig{Resources: &runtime.LinuxContainerResources{CpuShares: 5}}
	if again, err := m.RunPod(t.Context(), same); again != id || err != nil {
		t.Errorf("the same: %s, %v", again, err)
	}
	other := request()
	other.Config.Hostname = "db"
	if got, err := m.RunPod(t.Context(), other); !errdefs.IsAlreadyExists(err) {
		t.Errorf("another: %s, %v", got, err)
	}
}

// A cgroup that kubelet gave stays when the pod goes.
func TestGivenCgroupStays(t *testing.T) {
	w, m := start(t)
	w.add("cgroup", "/kubepods/pod1")
	req := podRequest("web")
	req.Config.Linux = &runtime.LinuxPodSandboxConfig{CgroupParent: "/kubepods/pod1"}
	id, err := m.RunPod(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.RemovePod(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if !w.has("cgroup", "/kubepods/pod1") {
		t.Error("it is gone")
	}
}

func TestStopPodRetriesNetwork(t *testing.T) {
	w, m := start(t)
	podID, _ := running(t, m)
	w.setFail("Del", errors.New("not now"))
	if err := m.StopPod(t.Context(), podID); err == nil {
		t.Fatal("no error")
	}
	if p, err := m.Pod(podID); err != nil || p.State != PodStopping {
		t.Errorf("pod %v, %v", p.State, err)
	}
	if _, err := m.CreateContainer(t.Context(), containerRequest(podID, "late")); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("create in a stopping pod: %v", err)
	}
	if _, err := m.RunPod(t.Context(), podRequest("web")); !errdefs.IsAlreadyExists(err) {
		t.Errorf("run again: %v", err)
	}
	w.setFail("Del", nil)
	eventually(t, "stopped", func() bool { p, _ := m.Pod(podID); return p.State == PodNotReady })
	if err := m.RemovePod(t.Context(), podID); err != nil {
		t.Fatal(err)
	}
	clean(t, w, m)
}

// Pods, containers and everything else at once, for the race detector.
func TestConcurrency(t *testing.T) {
	w, m := start(t)
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					m.Pods()
					m.Containers()
					m.ImagesInUse()
					_, cancel := m.Subscribe()
					cancel()
				}
			}
		})
	}
	for i := range 8 {
		writers.Go(func() {
			name := string(rune('a' + i/2))
			for range 5 {
				podID, err := m.RunPod(t.Context(), podRequest(name))
				if err != nil {
					continue
				}
				id, err := m.CreateContainer(t.Context(), containerRequest(podID, "c"))
				if err == nil {
					_, _ = m.StartContainer(t.Context(), id, nil)
					_ = m.StopContainer(t.Context(), id, time.Minute)
				}
				_ = m.RemovePod(t.Context(), podID)
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	for _, p := range m.Pods() {
		if err := m.RemovePod(t.Context(), p.ID); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "all gone", func() bool { return len(w.left()) == 0 })
	clean(t, w, m)
}

// What is left of a first attempt must not take the name from the pod that the
// second one made.
func TestLeftoverTakesNoName(t *testing.T) {
	w, m := start(t)
	id := readyPod(t, m)
	p, err := m.findPod(id)
	if err != nil {
		t.Fatal(err)
	}
	first := *p.get()
	first.ID, first.State = newID(), podMaking
	m.addPod(&first)
	m.recoverPod(t.Context(), m.pods[first.ID])
	if again, err := m.RunPod(t.Context(), podRequest("web")); again != id || err != nil {
		t.Errorf("the same request gave %s, %v", again, err)
	}
	if err := m.RemovePod(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	clean(t, w, m)
}
