package execinit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A process that is killed before it is in the container, as all that is in its
// cgroups are when it ends, has not been started: its number would be zero, and
// whoever killed that would kill the supervisor.
func TestKilledBeforeItBegan(t *testing.T) {
	// Joining waits here.
	pipe := filepath.Join(t.TempDir(), "tasks")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	target, err := os.Open("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	type result struct {
		pid int
		err error
	}
	done := make(chan result, 1)
	go func() {
		pid, err := Start(t.Context(), target, [3]*os.File{}, &Request{Args: []string{"x"}, Dir: "/", Tasks: []string{pipe}})
		done <- result{pid, err}
	}()
	for deadline := time.Now().Add(10 * time.Second); !killChild(t); {
		if time.Now().After(deadline) {
			t.Fatal("no process began")
		}
	}
	if got := <-done; got.pid != 0 || !errors.Is(got.err, ErrKilled) {
		t.Errorf("%d, %v", got.pid, got.err)
	}
}

// killChild kills the child that waits to open the pipe.
func killChild(t *testing.T) bool {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for child := range strings.FieldsSeq(string(text)) {
			name, _ := os.ReadFile("/proc/" + child + "/comm")
			var pid int
			if _, err := fmt.Sscan(child, &pid); err == nil && string(name) == "exec-init\n" {
				return unix.Kill(pid, unix.SIGKILL) == nil
			}
		}
	}
	return false
}
