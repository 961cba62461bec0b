package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/supervisor"
)

// byLibcontainer asks for what a process has anyway, which execs without libcontainer leave to it.
func byLibcontainer(p *specs.Process) *specs.Process {
	p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 4}
	return p
}

// libcontainerExecs is how many execs libcontainer was asked for.
func (n *node) libcontainerExecs() int {
	return strings.Count(n.supervisorLog(), "exec by libcontainer")
}

// execText runs a process and returns what it wrote.
func (n *node) execText(id, execID string, p *specs.Process) string {
	n.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		n.t.Fatal(err)
	}
	defer r.Close()
	_, err = n.Exec(n.t.Context(), supervisor.Exec{ContainerID: id, ExecID: execID, Process: p, Streams: supervisor.Streams{Stdout: w, Stderr: w}})
	w.Close()
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		n.t.Fatal(err)
	}
	if exit, err := n.WaitExec(n.t.Context(), id, execID); err != nil || exit.Code != 0 {
		n.t.Errorf("%s: exit %+v, %v: %s", execID, exit, err, out)
	}
	return string(out)
}

// lookAround says all that a process can be told by.
const lookAround = `cat /proc/self/status /proc/self/limits /proc/self/cgroup /proc/self/oom_score_adj /proc/self/personality
cat /proc/self/timerslack_ns /proc/self/autogroup /proc/self/coredump_filter
while read -r key; do case $key in *_ses.one:*) echo session keyring;; esac; done < /proc/keys
id; pwd; umask; export -p; echo "$0 $@"
for f in /proc/self/fd/* /proc/self/ns/* /proc/self/root; do readlink $f; done
read -r pid comm state parent group session rest < /proc/$$/stat; echo leads: $((pid == group && pid == session)) $parent`

// passing is what differs between two runs of the same.
var passing = []*regexp.Regexp{
	regexp.MustCompile(`(?m)^(Pid|Tgid|Ngid|PPid|SigQ|NS\w+|Vm\w+|Rss\w+|Hugetlb\w+|\w+_ctxt_switches|x86_Thread\w*|Mems_allowed):.*\n`),
	regexp.MustCompile(`pipe:\[\d+\]`),
	regexp.MustCompile(`/autogroup-\d+`),
	regexp.MustCompile(`/proc/\d+/fd`),
}

func settled(text string) []string {
	if !cgroups.IsCgroup2UnifiedMode() {
		// There an exec comes late into its cgroup of v2.
		text = regexp.MustCompile(`(?m)^0::.*\n`).ReplaceAllString(text, "")
	}
	for _, r := range passing {
		text = r.ReplaceAllString(text, "")
	}
	return strings.Split(text, "\n")
}

// A process is the same whoever runs it.
func TestExecIsLibcontainers(t *testing.T) {
	n := startNode(t)
	c := n.container("one", "sleep 1000")
	umask, score := uint32(0o27), 321
	c.Spec.Process.User.Umask = &umask
	c.Spec.Process.OOMScoreAdj = &score
	c.Spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 99, Hard: 111}}
	n.start(c)
	some, one := []string{"CAP_CHOWN", "CAP_KILL", "CAP_SETUID"}, []string{"CAP_KILL"}
	for name, change := range map[string]func(*specs.Process){
		"root": func(*specs.Process) {},
		"user": func(p *specs.Process) {
			p.User = specs.User{UID: 1234, GID: 2345, AdditionalGids: []uint32{7, 5000000}}
			p.Cwd, p.NoNewPrivileges = "/tmp", true
		},
		"limits": func(p *specs.Process) {
			p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 1, Hard: 2}, {Type: "RLIMIT_NPROC", Soft: 1000, Hard: 1001}}
		},
		"score": func(p *specs.Process) { p.OOMScoreAdj = new(456) },
		"capabilities": func(p *specs.Process) {
			p.Capabilities = &specs.LinuxCapabilities{Bounding: some, Permitted: some, Effective: one}
		},
		"ambient": func(p *specs.Process) {
			p.User = specs.User{UID: 7, GID: 8}
			p.Capabilities = &specs.LinuxCapabilities{Bounding: some, Permitted: some, Effective: one, Ambient: one}
		},
		"environment": func(p *specs.Process) {
			p.Env = []string{"A=1", "PATH=relative:/none:/bin", "A=2=3", "HOME=", "HOME=/here", "EMPTY="}
			p.Args = append([]string{"sh"}, append(p.Args[1:], "name", "a b", "", "ü\n")...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := execProcess(lookAround)
			change(p)
			before := n.libcontainerExecs()
			ours := settled(n.execText("one", name, p))
			if n.libcontainerExecs() != before {
				t.Error("libcontainer was asked")
			}
			theirs := settled(n.execText("one", name+"-lc", byLibcontainer(p)))
			if n.libcontainerExecs() != before+1 {
				t.Error("libcontainer was not asked")
			}
			for i := range max(len(ours), len(theirs)) {
				if i >= len(ours) || i >= len(theirs) || ours[i] != theirs[i] {
					t.Fatalf("they part at line %d of\nours:\n%s\nlibcontainer's:\n%s", i, strings.Join(ours[i:], "\n"), strings.Join(theirs[i:], "\n"))
				}
			}
			if name == "score" && !slices.Contains(ours, "456") {
				t.Error("it does not have the oom_score_adj that was asked for")
			}
			if len(ours) < 80 || !slices.Contains(ours, "session keyring") {
				t.Errorf("only %d lines:\n%s", len(ours), strings.Join(ours, "\n"))
			}
		})
	}
}

// What fails says why in the words that runc's users know, on both ways.
func TestFailedExecWords(t *testing.T) {
	n := startNode(t)
	for name, mode := range map[string]os.FileMode{"data": 0o644, "script": 0o755} {
		if err := os.WriteFile(filepath.Join(rootfs, "etc", name), []byte("no program\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	n.startSleep("one")
	for name, one := range map[string]struct {
		change func(*specs.Process)
		want   string
	}{
		"no program":     {func(p *specs.Process) { p.Args = []string{"nothing"} }, `exec: "nothing": executable file not found in $PATH`},
		"no path":        {func(p *specs.Process) { p.Args = []string{"/no/thing"} }, `exec: "/no/thing": stat /no/thing: no such file or directory`},
		"a folder":       {func(p *specs.Process) { p.Args = []string{"/tmp"} }, `exec: "/tmp": is a directory`},
		"no permission":  {func(p *specs.Process) { p.Args = []string{"/etc/data"} }, `exec: "/etc/data": permission denied`},
		"working folder": {func(p *specs.Process) { p.Cwd = "/no/where" }, `no such file or directory`},
	} {
		t.Run(name, func(t *testing.T) {
			p := execProcess("true")
			one.change(p)
			for _, way := range []*specs.Process{p, byLibcontainer(p)} {
				_, err := n.Exec(t.Context(), supervisor.Exec{ContainerID: "one", ExecID: "x", Process: way})
				if !errdefs.IsInvalidArgument(err) || !strings.HasSuffix(err.Error(), one.want+": "+errdefs.ErrInvalidArgument.Error()) {
					t.Errorf("%v", err)
				}
			}
		})
	}
	// Of a file that is no program libcontainer does not hear any more.
	p := execProcess("")
	p.Args = []string{"/etc/script"}
	if _, err := n.Exec(t.Context(), supervisor.Exec{ContainerID: "one", ExecID: "x", Process: p}); !errdefs.IsInvalidArgument(err) ||
		!strings.Contains(err.Error(), "exec /etc/script: exec format error") {
		t.Errorf("%v", err)
	}
	if got := n.count("one"); got != 1 {
		t.Errorf("%d processes are left", got)
	}
}

// startSleep starts a container with one process.
func (n *node) startSleep(id string) {
	n.t.Helper()
	c := n.container(id, "")
	c.Spec.Process.Args = []string{"sleep", "1111"}
	n.start(c)
}

// freeze freezes a container behind the supervisor's back, or thaws it.
func (n *node) freeze(id string, frozen bool) {
	n.t.Helper()
	file, states := "/sys/fs/cgroup/freezer"+n.cgroup+"/"+id+"/freezer.state", map[bool]string{true: "FROZEN", false: "THAWED"}
	if cgroups.IsCgroup2UnifiedMode() {
		file, states = "/sys/fs/cgroup"+n.cgroup+"/"+id+"/cgroup.freeze", map[bool]string{true: "1", false: "0"}
	}
	if err := os.WriteFile(file, []byte(states[frozen]), 0); err != nil {
		n.t.Error(err)
	}
}

// An exec that is given up while its container is frozen comes to nothing when it thaws.
func TestExecGivenUp(t *testing.T) {
	n := startNode(t)
	n.startSleep("one")
	n.freeze("one", true)
	defer n.freeze("one", false)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := n.Exec(ctx, supervisor.Exec{ContainerID: "one", ExecID: "late", Process: execProcess("sleep 2222")})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("exec in a frozen container: %v", err)
	}
	// The supervisor's clock may say later than ours that the time is over.
	testenv.Eventually(t, limit, "the supervisor gives it up", func() error {
		if !strings.Contains(n.supervisorLog(), "exec is given up") {
			return errors.New("it has not yet")
		}
		return nil
	})
	n.freeze("one", false)
	testenv.Eventually(t, limit, "only the first process is left", func() error {
		if got := n.count("one"); got != 1 {
			return fmt.Errorf("%d processes", got)
		}
		return nil
	})
	if out := n.execText("one", "after", execProcess("echo fine")); out != "fine\n" {
		t.Errorf("exec after it: %q", out)
	}
}

// What one container holds up when it starts holds up no other, costs the supervisor no threads, and comes to an end.
func TestHeldUpExecs(t *testing.T) {
	n := startNode(t)
	n.startSleep("one")
	n.startSleep("two")
	n.execText("one", "warm", execProcess("true"))
	info, err := n.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := threads(t, info.PID)
	n.freeze("one", true)
	defer n.freeze("one", false)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var wg sync.WaitGroup
	var refused atomic.Int32
	hold := func(execID string) {
		wg.Go(func() {
			_, err := n.Exec(ctx, supervisor.Exec{ContainerID: "one", ExecID: execID, Process: execProcess("true")})
			if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
				refused.Add(1)
			} else if err == nil {
				t.Error("an exec starts in a frozen container")
			}
		})
	}
	for i := range 20 {
		hold(fmt.Sprint("held-", i))
	}
	at := time.Now()
	if out := n.execText("two", "free", execProcess("echo fine")); out != "fine\n" {
		t.Errorf("exec in another container: %q", out)
	}
	if took := time.Since(at); took > limit/2 {
		t.Errorf("an exec in another container took %v", took)
	}
	testenv.Eventually(t, limit, "further execs are refused", func() error {
		hold(fmt.Sprint("more-", time.Now().UnixNano()))
		if refused.Load() == 0 {
			return errors.New("none is")
		}
		return nil
	})
	if now := threads(t, info.PID); now > before+10 {
		t.Errorf("%d threads, before %d", now, before)
	}
	cancel()
	wg.Wait()
	n.freeze("one", false)
	testenv.Eventually(t, limit, "only the first process is left", func() error {
		if got := n.count("one"); got != 1 {
			return fmt.Errorf("%d processes", got)
		}
		return nil
	})
	n.execText("one", "after", execProcess("true"))
}

// threads counts those of a process.
func threads(t *testing.T, pid int) int {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

// Execs that meet the end of their container fail, and leave nothing.
func TestExecAtTheEnd(t *testing.T) {
	n := startNode(t)
	for round := range 10 {
		id := fmt.Sprintf("c%d", round)
		n.startSleep(id)
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for j := range 50 {
					_, err := n.Exec(t.Context(), supervisor.Exec{ContainerID: id, ExecID: fmt.Sprintf("%d-%d", i, j), Process: execProcess("exit 0")})
					if err != nil {
						if !errdefs.IsFailedPrecondition(err) && !errdefs.IsNotFound(err) {
							t.Errorf("%v", err)
						}
						return
					}
				}
			})
		}
		if err := n.Signal(t.Context(), id, syscall.SIGKILL, false); err != nil {
			t.Error(err)
		}
		n.exit(id)
		wg.Wait()
		if _, err := n.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}
