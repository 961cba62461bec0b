package server_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/supervisor"
)

// onlyProgram makes a PATH for the supervisor that has only this script in
// it; "" makes an empty one.
func onlyProgram(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if script != "" {
		if err := os.WriteFile(filepath.Join(dir, "criu"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
}

func TestCheckCRIUSaysWhatIsMissing(t *testing.T) {
	testenv.Root(t)
	for _, test := range []struct{ name, script, want string }{
		{"none", "", "not installed"},
		{"old", "echo 'Warn  (a)'; echo 'Error (criu/vdso.c:381): vdso: no' >&2; exit 1", "Error (criu/vdso.c:381): vdso: no"},
		{"mute", "exit 3", "exit status 3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			onlyProgram(t, test.script)
			err := startNode(t).CheckCRIU(t.Context())
			if !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCheckpointRefuses(t *testing.T) {
	n := startNode(t)
	images := t.TempDir()
	if err := n.Checkpoint(t.Context(), "none", images); !errdefs.IsNotFound(err) {
		t.Errorf("unknown container: %v", err)
	}
	c := n.container("tty", "sleep 100")
	c.Spec.Process.Terminal = true
	n.start(c)
	if err := n.Checkpoint(t.Context(), "tty", images); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("with a terminal: %v", err)
	}
	n.start(n.container("over", "exit 0"))
	n.exit("over")
	if err := n.Checkpoint(t.Context(), "over", images); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("ended: %v", err)
	}
}

// A dump that fails leaves the container as it was, and says what CRIU said.
func TestCheckpointFails(t *testing.T) {
	n := startNode(t)
	n.start(n.container("one", "echo on; sleep 100"))
	n.awaitLog("one", "on")
	if err := n.Checkpoint(t.Context(), "one", filepath.Join(t.TempDir(), "a", "b")); err == nil {
		t.Error("dumped into a folder that is not there")
	}
	if st, err := n.state("one"); err != nil || st.Status != supervisor.StatusRunning {
		t.Errorf("it is %v, %v", st.Status, err)
	}
}

// Whether paused or not, a container is afterwards what it was. Debian's CRIU
// does not work on every kernel.
func TestCheckpointLeavesAsIs(t *testing.T) {
	n := startNode(t)
	if err := n.CheckCRIU(t.Context()); err != nil {
		t.Skip(err)
	}
	n.start(n.container("one", "i=0; while sleep 0.05; do i=$((i+1)); echo tick $i; done"))
	n.awaitLog("one", "tick 2")
	for _, pause := range []bool{false, true} {
		if pause {
			if err := n.Pause(t.Context(), "one"); err != nil {
				t.Fatal(err)
			}
		}
		images := t.TempDir()
		if err := n.Checkpoint(t.Context(), "one", images); err != nil {
			log, _ := os.ReadFile(filepath.Join(images, "dump.log"))
			t.Fatalf("%v\n%s", err, log)
		}
		if _, err := os.Stat(filepath.Join(images, "pstree.img")); err != nil {
			t.Error(err)
		}
		want := supervisor.StatusRunning
		if pause {
			want = supervisor.StatusPaused
		}
		if st, err := n.state("one"); err != nil || st.Status != want {
			t.Errorf("it is %v, %v", st.Status, err)
		}
	}
	before := len(readLog(t, filepath.Join(n.logs, "one.log")))
	if err := n.Resume(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, limit, "it goes on", func() error {
		if len(readLog(t, filepath.Join(n.logs, "one.log"))) <= before {
			return os.ErrNotExist
		}
		return nil
	})
}

// A container is restored as another one: it counts on, into its own log.
func TestRestore(t *testing.T) {
	n := startNode(t)
	if err := n.CheckCRIU(t.Context()); err != nil {
		t.Skip(err)
	}
	n.start(n.container("one", "i=0; while sleep 0.05; do i=$((i+1)); echo tick $i; done"))
	n.awaitLog("one", "tick 5")
	images := t.TempDir()
	if err := n.Checkpoint(t.Context(), "one", images); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Delete(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	two := n.container("two", "echo not restored")
	two.Restore = images
	pid, err := n.Start(t.Context(), two)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(images, "restore.log"))
		t.Fatalf("%v\n%s", err, log)
	}
	n.awaitLog("two", "tick 9")
	for _, r := range readLog(t, filepath.Join(n.logs, "two.log")) {
		if r.text == "tick 1" || r.text == "not restored" || r.stream != "stdout" {
			t.Errorf("it said %+v", r)
		}
	}
	if st, err := n.state("two"); err != nil || st.PID != pid || st.Status != supervisor.StatusRunning {
		t.Errorf("it is %+v, %v", st, err)
	}
	if err := n.Signal(t.Context(), "two", 9, true); err != nil {
		t.Fatal(err)
	}
	if exit := n.exit("two"); exit.Code != 137 {
		t.Errorf("it ended with %+v", exit)
	}
}

// CRIU's configuration is written from what a dump says: nothing but the names
// of files may come through.
func TestRestoreRefusesDescriptors(t *testing.T) {
	n := startNode(t)
	for i, text := range []string{
		`["file[1:2]\naction-script /bin/sh"]`, `["","","",""]`, `{}`, `["pipe:[1]"]`, "",
		`["` + strings.Repeat("a", 1<<20) + `"]`,
	} {
		images := t.TempDir()
		if err := os.WriteFile(filepath.Join(images, "descriptors.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := n.container("bad", "true")
		c.Restore = images
		if _, err := n.Start(t.Context(), c); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%d: got %v", i, err)
		}
	}
}
