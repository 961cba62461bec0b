package vm

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/nodeagent/nodeagent/cgroups"
	"github.com/nodeagent/nodeagent/internal/testenv"
)

// patience is how long a script waits for something to become so.
const patience = 30 * time.Second

// show is a shell command that prints the limits of a container.
const show = `cd /sys/fs/cgroup; for f in memory.max memory.swap.max memory.low cpu.max cpu.weight cpuset.cpus pids.max io.weight; do ` +
	`echo -n "$f=$(cat $f) "; done; echo`

// TestNodectl is what the machine runs: scripts of a person's commands, of what differs with cgroup v2. They share an
// agent, since there is little time.
func TestNodectl(t *testing.T) {
	if os.Getenv("NODEAGENT_TEST_MACHINE") == "" {
		t.Skip("runs in the machine")
	}
	if mode := cgroups.Detect(); mode != cgroups.V2 {
		t.Fatalf("the machine has cgroups of mode %s", mode)
	}
	testenv.Leaks(t)
	agent := testenv.Agent(t, testenv.AgentOptions{})
	if out := importBusybox(t, agent); out.Code != 0 {
		t.Fatalf("nodectl import: %s", out.Stderr)
	}
	// Named one by one, so that those of one machine do not run side by side.
	for _, script := range []string{"limits", "cgroups", "ends"} {
		t.Run(script, func(t *testing.T) { runScript(t, agent, script) })
	}
}

// runScript runs the script of a person's commands that testdata has.
func runScript(t *testing.T, agent *testenv.AgentProcess, script string) {
	testscript.Run(t, testscript.Params{
		Files: []string{filepath.Join("testdata", script+".txtar")}, RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("NODEAGENT_HOST", "unix://"+agent.Socket)
			env.Setenv("PATH", filepath.Dir(testenv.Binary(t, "nodectl"))+string(os.PathListSeparator)+os.Getenv("PATH"))
			env.Setenv("SHOW", show)
			env.Setenv("PARENT", agent.CgroupParent)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"eventually": eventually},
	})
}

// importBusybox makes an image of the machine's busybox.
func importBusybox(t *testing.T, agent *testenv.AgentProcess) testenv.Output {
	t.Helper()
	dir := t.TempDir()
	root, archive := filepath.Join(dir, "root"), filepath.Join(dir, "root.tar")
	for _, args := range [][]string{
		{"mkdir", "-p", root + "/bin", root + "/etc", root + "/tmp"},
		{"cp", "/bin/busybox", root + "/bin/"},
		{"busybox", "--install", "-s", root + "/bin"},
		{"tar", "-c", "-f", archive, "-C", root, "."},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	return agent.Nodectl("import", archive, "busybox")
}

// eventually is the command "eventually PATTERN PROGRAM ARGS": it runs a program again and again until its output matches.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN PROGRAM [ARGS]")
	}
	pattern := regexp.MustCompile("(?m)" + args[0])
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		if err := ts.Exec(args[1], args[2:]...); err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("%q never came, but %q", args[0], ts.ReadFile("stdout"))
		}
	}
}
