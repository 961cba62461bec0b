package server_test

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// pss is the proportional set size of a process in bytes.
func pss(t *testing.T, pid int) int64 {
	t.Helper()
	return memory(t, pid, "Pss")
}

// memory is a sum over the mappings of a process, in bytes.
func memory(t *testing.T, pid int, name string) int64 {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		var kib int64
		if _, err := fmt.Sscanf(scan.Text(), name+": %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	t.Fatalf("no %s of process %d", name, pid)
	return 0
}

// idle waits until the supervisor has given its memory back.
func (n *node) idlePSS(pid int) int64 {
	n.t.Helper()
	// Of a supervisor with nothing to do, memory only falls.
	last, since := pss(n.t, pid), time.Now()
	testenv.Eventually(n.t, limit, "memory comes to rest", func() error {
		now := pss(n.t, pid)
		if now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) < 5*time.Second {
			return fmt.Errorf("at %d bytes", now)
		}
		return nil
	})
	return last
}

// TestCost holds the supervisor to what a container may cost, with room for a
// loaded machine.
func TestCost(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	n := startNode(t)
	info, err := n.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n.start(n.container("warm", "sleep 1000"))
	before := n.idlePSS(info.PID)
	const count = 30
	var times []time.Duration
	for i := range count {
		c := n.container(fmt.Sprintf("c%d", i), "")
		c.Spec.Process.Args = strings.Fields("sleep 1000")
		at := time.Now()
		n.start(c)
		times = append(times, time.Since(at))
	}
	each := (n.idlePSS(info.PID) - before) / count
	slices.Sort(times)
	t.Logf("a start takes %v (median of %d), the first %v; a container costs %d bytes beside %d",
		times[count/2], count, times[0], each, before)
	if times[count/2] > 250*time.Millisecond {
		t.Errorf("a start takes %v", times[count/2])
	}
	if each > 100<<10 {
		t.Errorf("a container costs %d bytes", each)
	}
}
