package server_test

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// descriptors counts the open files of a process.
func descriptors(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestNoDescriptorLeaks attaches, executes and starts at the same time, and
// lets clients of a silent container vanish.
func TestNoDescriptorLeaks(t *testing.T) {
	n := startNode(t)
	info, err := n.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	silent := n.container("silent", "cat")
	silent.Stdin = true
	n.start(silent)
	n.execOutput("silent", "warm", "true")
	before := descriptors(t, info.PID)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for j := range 5 {
				id := fmt.Sprintf("x%d-%d", i, j)
				if out, exit := n.execOutput("silent", id, "echo "+id); out != id+"\n" || exit.Code != 0 {
					t.Errorf("exec %s: %q, %+v", id, out, exit)
				}
				client := newTerminal(t, false)
				client.attach(n, "silent")
				client.in.Close()
				client.out.Close()
			}
			id := fmt.Sprintf("c%d", i)
			c := n.container(id, "echo "+id+"; exit 2")
			c.Stdin, c.Spec.Process.Terminal = true, i%2 == 0
			client := newTerminal(t, false)
			c.Attach = client.streams
			n.start(c)
			client.sent()
			client.awaitEOF()
			if exit := n.exit(id); exit.Code != 2 {
				t.Errorf("container %s: %+v", id, exit)
			}
			if _, err := n.Delete(t.Context(), id); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	testenv.Eventually(t, limit, "descriptors are closed", func() error {
		if now := descriptors(t, info.PID); now > before {
			return fmt.Errorf("%d descriptors, before %d", now, before)
		}
		return nil
	})
}

// TestClosedFileIsRefused attaches with a file that is no more.
func TestClosedFileIsRefused(t *testing.T) {
	n := startNode(t)
	n.start(n.container("one", "sleep 1000"))
	client := newTerminal(t, false)
	client.streams.Stdout.Close()
	if err := n.Attach(t.Context(), "one", client.streams); err == nil {
		t.Error("a closed file is sent")
	}
}
