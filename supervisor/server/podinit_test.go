package server_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nodeagent/nodeagent/supervisor"
)

// startsInPID puts a container into the PID namespace of a process.
func startsInPID(c supervisor.Container, pid int) {
	for i, ns := range c.Spec.Linux.Namespaces {
		if ns.Type == specs.PIDNamespace {
			c.Spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/pid", pid)
		}
	}
}

// The first process of a pod's PID namespace is seen by its containers, and one that debugs is often given
// CAP_SYS_PTRACE. It must not find the host there.
func TestPodInitIsNoWayToTheHost(t *testing.T) {
	n := startNode(t)
	other := n.start(n.container("other", "sleep 1000"))
	var paths []string
	for _, kind := range []string{"net", "ipc", "uts"} {
		paths = append(paths, fmt.Sprintf("/proc/%d/ns/%s", other, kind))
	}
	pid, err := n.StartPodInit(t.Context(), supervisor.PodInit{ID: "pod", NamespacePaths: paths})
	if err != nil {
		t.Fatal(err)
	}
	defer n.StopPodInit(t.Context(), "pod")
	c := n.container("one", "echo /proc/1/root/*; echo /proc/1/cwd/../*; cat /proc/1/mounts; true")
	startsInPID(c, pid)
	for _, set := range []*[]string{&c.Spec.Process.Capabilities.Bounding, &c.Spec.Process.Capabilities.Permitted, &c.Spec.Process.Capabilities.Effective} {
		*set = append(*set, "CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE")
	}
	n.start(c)
	n.exit("one")
	var seen []string
	for _, line := range readLog(t, filepath.Join(n.logs, "one.log")) {
		if line.stream == "stdout" {
			seen = append(seen, line.text)
		}
	}
	if len(seen) != 3 || seen[0] != "/proc/1/root/*" || seen[1] != "/proc/1/cwd/../*" || !strings.HasPrefix(seen[2], "none / tmpfs ro,") {
		t.Errorf("a container sees %q", seen)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`CapPrm:\t0+\n`, `CapEff:\t0+\n`, `NoNewPrivs:\t1\n`, `Seccomp:\t2\n`, `Groups:\t *\n`} {
		if !regexp.MustCompile(want).Match(status) {
			t.Errorf("its status lacks %s:\n%s", want, status)
		}
	}
	for _, path := range append(paths, fmt.Sprintf("/proc/%d/ns/mnt", os.Getpid())) {
		theirs, _ := os.Readlink(path)
		ours, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, filepath.Base(path)))
		if (ours == theirs) == (filepath.Base(path) == "mnt") {
			t.Errorf("it is in %s, and %s is %s", ours, path, theirs)
		}
	}
}
