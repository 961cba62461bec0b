package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/failpoint"
	"github.com/nodeagent/nodeagent/supervisor"
)

func readyPod(t testing.TB, m *Manager) string {
	t.Helper()
	id, err := m.RunPod(t.Context(), podRequest("web"))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// withImageMount asks for all that a container can have.
func fullRequest(podID string) CreateContainerRequest {
	req := containerRequest(podID, "c")
	req.Config.Mounts = []*runtime.Mount{
		{ContainerPath: "/host", HostPath: "/etc"},
		{ContainerPath: "/data", Image: &runtime.ImageSpec{Image: "data"}, Readonly: true},
	}
	return req
}

func TestCreateContainerStepFails(t *testing.T) {
	for _, step := range []string{
		"pod", "image", "log", "directory", "snapshot", "rootfs", "mounts", "user", "specification", "record", "publish",
	} {
		for _, when := range []string{"before", "after"} {
			t.Run(step+" "+when, func(t *testing.T) {
				w, m := start(t)
				podID := readyPod(t, m)
				before := len(w.left())
				disable, err := failpoint.Enable("create." + step + "." + when + "=error:1")
				if err != nil {
					t.Fatal(err)
				}
				defer disable()
				_, err = m.CreateContainer(t.Context(), fullRequest(podID))
				if !errors.Is(err, failpoint.ErrInjected) {
					t.Fatalf("error %v", err)
				}
				if len(w.left()) != before || len(m.Containers()) != 0 || len(m.ImagesInUse()) != 0 {
					t.Errorf("left behind: %v", w.left())
				}
				if _, err := m.CreateContainer(t.Context(), fullRequest(podID)); err != nil {
					t.Fatalf("second time: %v", err)
				}
				if err := m.RemovePod(t.Context(), podID); err != nil {
					t.Fatal(err)
				}
				clean(t, w, m)
			})
		}
	}
}

func TestCreateContainerRepeated(t *testing.T) {
	_, m := start(t)
	podID := readyPod(t, m)
	var wg sync.WaitGroup
	ids := make([]string, 10)
	for i := range ids {
		wg.Go(func() { ids[i], _ = m.CreateContainer(t.Context(), containerRequest(podID, "c")) })
	}
	wg.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Fatalf("IDs %v", ids)
		}
	}
	if _, err := m.StartContainer(t.Context(), ids[0], nil); err != nil {
		t.Fatal(err)
	}
	if _, err := m.CreateContainer(t.Context(), containerRequest(podID, "c")); !errdefs.IsAlreadyExists(err) {
		t.Errorf("create of a running one: %v", err)
	}
	if _, err := m.StartContainer(t.Context(), ids[0], nil); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("second start: %v", err)
	}
}

// Who asks for another container under the name of one that is there must not
// get that one; what kubelet makes up anew for each call does not count.
func TestCreateContainerOfAnotherConfiguration(t *testing.T) {
	_, m := start(t)
	podID := readyPod(t, m)
	file := func() string { return t.TempDir() }
	request := func() CreateContainerRequest {
		req := containerRequest(podID, "c")
		req.Config.Annotations = map[string]string{"restarts": "0"}
		req.Config.Mounts = []*runtime.Mount{{HostPath: file(), ContainerPath: "/dev/termination-log"}}
		return req
	}
	id, err := m.CreateContainer(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.UpdateContainer(t.Context(), id, &runtime.LinuxContainerResources{CpuShares: 300}); err != nil {
		t.Fatal(err)
	}
	if again, err := m.CreateContainer(t.Context(), request()); again != id || err != nil {
		t.Errorf("the same: %s, %v", again, err)
	}
	for name, change := range map[string]func(*runtime.ContainerConfig){
		"command":  func(c *runtime.ContainerConfig) { c.Command = []string{"other"} },
		"mount":    func(c *runtime.ContainerConfig) { c.Mounts[0].ContainerPath = "/elsewhere" },
		"no mount": func(c *runtime.ContainerConfig) { c.Mounts = nil },
		"rights": func(c *runtime.ContainerConfig) {
			c.Linux = &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{NoNewPrivs: true}}
		},
	} {
		req := request()
		change(req.Config)
		if got, err := m.CreateContainer(t.Context(), req); !errdefs.IsAlreadyExists(err) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

func TestCreateContainerRefuses(t *testing.T) {
	w, m := start(t)
	req := podRequest("web")
	req.Config.LogDirectory = t.TempDir()
	podID, err := m.RunPod(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	before := len(w.left())
	kinds := map[string]func(error) bool{"missing image": errdefs.IsNotFound, "unknown pod": errdefs.IsNotFound}
	for name, change := range map[string]func(*CreateContainerRequest){
		"no configuration": func(r *CreateContainerRequest) { r.Config = nil },
		"no metadata":      func(r *CreateContainerRequest) { r.Config.Metadata = nil },
		"no image":         func(r *CreateContainerRequest) { r.Config.Image = nil },
		"missing image":    func(r *CreateContainerRequest) { r.Config.Image.Image = "missing" },
		"unknown pod":      func(r *CreateContainerRequest) { r.PodID = "ff" },
		"no pod":           func(r *CreateContainerRequest) { r.PodID = "" },
		"log outside":      func(r *CreateContainerRequest) { r.Config.LogPath = "../x.log" },
		"absolute log":     func(r *CreateContainerRequest) { r.Config.LogPath = "/x.log" },
		"mount source": func(r *CreateContainerRequest) {
			r.Config.Mounts = []*runtime.Mount{{ContainerPath: "/x", HostPath: "/does/not/exist"}}
		},
		"user": func(r *CreateContainerRequest) {
			r.Config.Linux = &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{
				RunAsUsername: "nobody-here",
			}}
		},
		"group without user": func(r *CreateContainerRequest) {
			r.Config.Linux = &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{
				RunAsGroup: &runtime.Int64Value{Value: 5},
			}}
		},
		"seccomp profile": func(r *CreateContainerRequest) {
			r.Config.Linux = &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{
				Seccomp: &runtime.SecurityProfile{
					ProfileType: runtime.SecurityProfile_Localhost, LocalhostRef: "/does/not/exist.json",
				},
			}}
		},
	} {
		req := containerRequest(podID, "c")
		change(&req)
		want := kinds[name]
		if want == nil {
			want = errdefs.IsInvalidArgument
		}
		_, err := m.CreateContainer(t.Context(), req)
		if !want(err) {
			t.Errorf("%s: %v", name, err)
		}
		if name == "mount source" && !strings.Contains(err.Error(), "/does/not/exist") {
			t.Errorf("%s is not named: %v", name, err)
		}
	}
	if len(w.left()) != before {
		t.Errorf("left behind: %v", w.left())
	}
}

func TestStartContainerFails(t *testing.T) {
	for _, point := range []string{
		"start.rootfs.before", "start.specification.after", "start.process.after", "start.supervisor.before", "start.supervisor.after",
		"start.record.before",
	} {
		t.Run(point, func(t *testing.T) {
			w, m := start(t)
			podID := readyPod(t, m)
			id, err := m.CreateContainer(t.Context(), containerRequest(podID, "c"))
			if err != nil {
				t.Fatal(err)
			}
			disable, err := failpoint.Enable(point + "=error:1")
			if err != nil {
				t.Fatal(err)
			}
			defer disable()
			if _, err := m.StartContainer(t.Context(), id, nil); !errors.Is(err, failpoint.ErrInjected) {
				t.Fatalf("error %v", err)
			}
			c, _ := m.Container(id)
			if c.State != ContainerExited || c.ExitCode != 128 || c.Reason != "StartError" || c.Message == "" {
				t.Errorf("container %+v", c)
			}
			if len(w.running) != 0 {
				t.Error("it runs")
			}
			if err := m.RemovePod(t.Context(), podID); err != nil {
				t.Fatal(err)
			}
			clean(t, w, m)
		})
	}
}

func TestExitReasons(t *testing.T) {
	for want, exit := range map[string]supervisor.Exit{
		"Completed": {}, "Error": {Code: 1}, "OOMKilled": {Code: 137, OOMKilled: true},
		"SupervisorLost": {Code: 255, Reason: "SupervisorLost"},
	} {
		w, m := start(t)
		_, id := running(t, m)
		fakeSupervisor{w}.end(id, exit)
		c, err := m.WaitContainer(t.Context(), id)
		if err != nil || c.Reason != want || c.ExitCode != exit.Code || c.FinishedAt.Before(c.StartedAt) {
			t.Errorf("%s: %+v, %v", want, c, err)
		}
		eventually(t, "clean up", func() bool { return !w.has("mount", m.rootfsDir(id)) })
	}
}

// What the OOM killer does is told of a running container, before its end, whenever it is heard of.
func TestOOMEvents(t *testing.T) {
	w, m := start(t)
	podID, err := m.RunPod(t.Context(), podRequest("web"))
	if err != nil {
		t.Fatal(err)
	}
	id, err := m.CreateContainer(t.Context(), containerRequest(podID, "c"))
	if err != nil {
		t.Fatal(err)
	}
	events, cancel := m.Subscribe()
	defer cancel()
	release := w.setBlock("Start")
	started := make(chan error, 1)
	go func() {
		_, err := m.StartContainer(t.Context(), id, nil)
		started <- err
	}()
	eventually(t, "the start", func() bool { return w.count("Start") == 1 })
	sup := fakeSupervisor{w}
	sup.killForMemory(id)
	release()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	next := func(want ...EventType) {
		t.Helper()
		e := <-events
		if !slices.Contains(want, e.Type) || e.ContainerID != id || e.Container.StartedAt.IsZero() {
			t.Errorf("event %s of %+v, want %s", e.Type, e.Container, want)
		}
	}
	next(EventStarted, EventOOM) // whichever comes first
	next(EventStarted, EventOOM)
	sup.killForMemory(id)
	sup.end(id, supervisor.Exit{Code: 137, OOMKilled: true})
	next(EventOOM)
	next(EventStopped)
	sup.killForMemory(id)
	sup.killForMemory("unknown")
	if err := m.RemoveContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Type != EventDeleted {
		t.Errorf("event %+v", e)
	}
}

// The signal is sent once; a second stop with a shorter time wins.
func TestStopContainerTwice(t *testing.T) {
	w, m := start(t)
	w.deaf = true
	_, id := running(t, m)
	first := make(chan error, 1)
	go func() { first <- m.StopContainer(t.Context(), id, time.Hour) }()
	eventually(t, "the signal", func() bool { return w.count("Signal quit") == 1 })
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.StopContainer(gone, id, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := m.StopContainer(t.Context(), id, 10*time.Millisecond); err != nil {
		t.Error(err)
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
	if w.count("Signal quit") != 1 || w.count("Signal killed") != 1 {
		t.Errorf("calls %v", w.calls)
	}
	if c, _ := m.Container(id); c.ExitCode != 137 {
		t.Errorf("exit code %d", c.ExitCode)
	}
}

// A container that SIGKILL does not end gives the caller an error in time,
// and is waited for in the background.
func TestStopContainerStuck(t *testing.T) {
	w, m := start(t)
	w.immortal = true
	podID, id := running(t, m)
	if err := m.StopContainer(t.Context(), id, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if err := m.StopPod(t.Context(), podID); err == nil {
		t.Error("the pod stopped")
	}
	fakeSupervisor{w}.end(id, supervisor.Exit{Code: 137})
	eventually(t, "the pod's stop", func() bool { p, _ := m.Pod(podID); return p.State == PodNotReady })
}

func TestStopAndRemoveUnknown(t *testing.T) {
	_, m := start(t)
	for name, f := range map[string]func(id string) error{
		"StopContainer":   func(id string) error { return m.StopContainer(t.Context(), id, 0) },
		"RemoveContainer": func(id string) error { return m.RemoveContainer(t.Context(), id) },
		"StopPod":         func(id string) error { return m.StopPod(t.Context(), id) },
		"RemovePod":       func(id string) error { return m.RemovePod(t.Context(), id) },
	} {
		if err := f("unknown"); err != nil {
			t.Errorf("%s of an unknown ID: %v", name, err)
		}
		if err := f(""); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s of no ID: %v", name, err)
		}
	}
}

func TestRemoveStepFails(t *testing.T) {
	for _, point := range []string{
		"remove.process.before", "remove.mounts.after", "remove.directory.after", "remove.snapshot.after", "remove.record.after",
		"stop.init.after", "stop.network.after", "stop.namespaces.after", "stop.cgroup.after", "stop.record.before",
		"remove pod.containers.after", "remove pod.directory.after", "remove pod.record.after",
	} {
		t.Run(point, func(t *testing.T) {
			w, m := start(t)
			podID, _ := running(t, m)
			disable, err := failpoint.Enable(point + "=error:1")
			if err != nil {
				t.Fatal(err)
			}
			defer disable()
			if err := m.RemovePod(t.Context(), podID); !errors.Is(err, failpoint.ErrInjected) {
				t.Fatalf("error %v", err)
			}
			if err := m.RemovePod(t.Context(), podID); err != nil {
				t.Fatalf("second time: %v", err)
			}
			clean(t, w, m)
		})
	}
}

func TestUpdateContainer(t *testing.T) {
	w, m := start(t)
	podID := readyPod(t, m)
	req := containerRequest(podID, "c")
	req.Config.Linux = &runtime.LinuxContainerConfig{Resources: &runtime.LinuxContainerResources{
		CpuShares: 512, MemoryLimitInBytes: 1 << 28,
	}}
	id, err := m.CreateContainer(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	update := func(shares int64) error {
		return m.UpdateContainer(t.Context(), id, &runtime.LinuxContainerResources{CpuShares: shares})
	}
	shares := func() int64 {
		c, _ := m.Container(id)
		if r := c.Config.Linux.Resources; r.MemoryLimitInBytes != 1<<28 {
			t.Errorf("zero changed the memory limit to %d", r.MemoryLimitInBytes)
		}
		return c.Config.Linux.Resources.CpuShares
	}
	if err := update(600); err != nil || shares() != 600 || w.count("Update") != 0 {
		t.Errorf("created: %v, %d", err, shares())
	}
	if _, err := m.StartContainer(t.Context(), id, nil); err != nil {
		t.Fatal(err)
	}
	if err := update(700); err != nil || shares() != 700 || w.count("Update") != 1 {
		t.Errorf("running: %v, %d", err, shares())
	}
	w.setFail("Update", errors.New("no"))
	if err := update(800); err == nil || shares() != 700 {
		t.Errorf("failed: %v, %d", err, shares())
	}
	w.setFail("Update", nil)
	if err := m.StopContainer(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	if err := update(900); err != nil || shares() != 900 {
		t.Errorf("exited: %v, %d", err, shares())
	}
	if req.Config.Linux.Resources.CpuShares != 512 {
		t.Error("the request was changed")
	}
}

// closer is a buffer that notes that it was closed.
type closer struct {
	bytes.Buffer
	closed bool
}

func (c *closer) Close() error { c.closed = true; return nil }

func TestExec(t *testing.T) {
	_, m := start(t)
	_, id := running(t, m)
	res, err := m.ExecSync(t.Context(), id, []string{"echo", "hello"}, time.Minute)
	if err != nil || string(res.Stdout) != "hello\n" || res.ExitCode != 3 {
		t.Errorf("%+v, %v", res, err)
	}
	res, err = m.ExecSync(t.Context(), id, []string{"flood"}, time.Minute)
	if err != nil || len(res.Stdout) != maxSyncOutput {
		t.Errorf("flood: %d bytes, %v", len(res.Stdout), err)
	}
	res, err = m.ExecSync(t.Context(), id, []string{"linger"}, time.Minute)
	if err != nil || string(res.Stdout) != "early" {
		t.Errorf("linger: %q, %v", res.Stdout, err)
	}
	var out closer
	code, err := m.Exec(t.Context(), ExecRequest{ContainerID: id, Cmd: []string{"echo", "x"}, IO: IO{Stdout: &out}})
	if err != nil || code != 3 || out.String() != "x\n" || !out.closed {
		t.Errorf("exec: %d, %v, %q", code, err, out.String())
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Exec(t.Context(), ExecRequest{ContainerID: id, Cmd: []string{"echo", "file"}, IO: IO{Stdout: f}}); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(f.Name()); err != nil || string(data) != "file\n" {
		t.Errorf("file: %q, %v", data, err)
	}
}

func TestExecTimeout(t *testing.T) {
	w, m := start(t)
	_, id := running(t, m)
	_, err := m.ExecSync(t.Context(), id, []string{"sleep"}, 20*time.Millisecond)
	if !errors.Is(err, context.DeadlineExceeded) || w.count("KillExec") != 1 {
		t.Errorf("error %v, killed %d times", err, w.count("KillExec"))
	}
	if err := m.StopContainer(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := m.ExecSync(t.Context(), id, []string{"echo"}, 0); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("exec in an exited container: %v", err)
	}
}

// The supervisor is told the deadline, and can find it passed before we do:
// the process must be killed all the same.
func TestExecTimeoutToldFirst(t *testing.T) {
	for _, call := range []string{"WaitExec", "Exec"} {
		t.Run(call, func(t *testing.T) {
			w, m := start(t)
			_, id := running(t, m)
			w.setFail(call, fmt.Errorf("%s: %w", call, context.DeadlineExceeded))
			_, err := m.ExecSync(t.Context(), id, []string{"sleep"}, time.Hour)
			if !errors.Is(err, context.DeadlineExceeded) || w.count("KillExec") != 1 {
				t.Errorf("error %v, killed %d times", err, w.count("KillExec"))
			}
		})
	}
}

func TestAttach(t *testing.T) {
	w, m := start(t)
	_, id := running(t, m)
	var out closer
	if err := m.Attach(t.Context(), id, IO{Stdout: &out}); err != nil || out.String() != "attached" || !out.closed {
		t.Errorf("%v, %q", err, out.String())
	}
	fakeSupervisor{w}.end(id, supervisor.Exit{})
	if _, err := m.WaitContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := m.Attach(t.Context(), id, IO{}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("attach to an exited container: %v", err)
	}
	if err := m.ReopenLog(t.Context(), id); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("reopen the log of an exited container: %v", err)
	}
}

func TestKeptContainerStartsAgain(t *testing.T) {
	w, m := start(t)
	podID := readyPod(t, m)
	req := fullRequest(podID)
	req.Keep = true
	id, err := m.CreateContainer(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := m.StartContainer(t.Context(), id, nil); err != nil {
			t.Fatal(err)
		}
		if err := m.StopContainer(t.Context(), id, 0); err != nil {
			t.Fatal(err)
		}
		eventually(t, "clean up", func() bool { return !w.has("mount", m.rootfsDir(id)) })
	}
	if err := m.RemovePod(t.Context(), podID); err != nil {
		t.Fatal(err)
	}
	clean(t, w, m)
}

func TestStats(t *testing.T) {
	_, m := start(t)
	podID, id := running(t, m)
	s, err := m.ContainerStats(t.Context(), id)
	if err != nil || s.Cpu.UsageCoreNanoSeconds.Value != 5 || s.WritableLayer.UsedBytes.Value != 10 {
		t.Errorf("%v, %v", s, err)
	}
	p, err := m.PodStats(t.Context(), podID)
	if err != nil || len(p.Linux.Containers) != 1 || p.Linux.Network == nil {
		t.Errorf("%v, %v", p, err)
	}
}

func TestSlowSubscriberIsDropped(t *testing.T) {
	_, m := start(t)
	events, cancel := m.Subscribe()
	defer cancel()
	podID := readyPod(t, m)
	p, err := m.findPod(podID)
	if err != nil {
		t.Fatal(err)
	}
	for range eventBuffer {
		m.publish(EventStarted, podID, p)
	}
	n := 0
	for range events {
		n++
	}
	if n != eventBuffer {
		t.Errorf("%d events", n)
	}
	cancel()
}
