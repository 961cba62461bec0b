package server_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nodeagent/nodeagent/supervisor"
)

// holdUserNamespace makes a user namespace and returns its path.
func holdUserNamespace(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWIPC,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}},
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	return fmt.Sprintf("/proc/%d/ns/", cmd.Process.Pid)
}

// TestUserNamespace runs a container that joins a pod's user, IPC and PID
// namespaces.
func TestUserNamespace(t *testing.T) {
	n := startNode(t)
	ns := holdUserNamespace(t)
	pid, err := n.StartPodInit(t.Context(), supervisor.PodInit{ID: "pod", NamespacePaths: []string{ns + "user", ns + "ipc"}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.StopPodInit(t.Context(), "pod")
	want, _ := os.Readlink(ns + "user")
	if got, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", pid)); got != want {
		t.Errorf("pod init is in %s, not %s", got, want)
	}
	root := filepath.Join(t.TempDir(), "rootfs")
	if out, err := exec.Command("cp", "-a", rootfs, root).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for dir := root; dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			break
		}
		if dir == "/tmp" {
			os.Chmod(dir, 0o1777)
			break
		}
	}
	c := n.container("one", "id -u; cat /proc/self/uid_map; echo again > /proc/self/fd/1; readlink /proc/self/ns/pid")
	c.Spec.Root.Path = root
	mapping := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	c.Spec.Linux.UIDMappings, c.Spec.Linux.GIDMappings = mapping, mapping
	c.Spec.Linux.Namespaces = append(c.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: ns + "user"})
	for i := range c.Spec.Linux.Namespaces {
		switch s := &c.Spec.Linux.Namespaces[i]; s.Type {
		case specs.PIDNamespace:
			s.Path = fmt.Sprintf("/proc/%d/ns/pid", pid)
		case specs.IPCNamespace:
			s.Path = ns + "ipc"
		}
	}
	n.start(c)
	if exit := n.exit("one"); exit.Code != 0 {
		t.Errorf("exit %+v", exit)
	}
	pidns, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	log := fmt.Sprint(readLog(t, c.LogPath))
	for _, want := range []string{"stdout F 0}", "100000", "again", pidns} {
		if !strings.Contains(log, want) {
			t.Errorf("log %s lacks %s", log, want)
		}
	}
}
