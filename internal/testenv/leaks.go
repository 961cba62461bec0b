package testenv

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/nodeagent/nodeagent/internal/leak"
)

const (
	// leakLimit is how long what a test started may take to go away by itself.
	leakLimit = 10 * time.Second
	// lockLimit bounds the wait for tests of other processes.
	lockLimit = 10 * time.Minute
	lockPath  = "/tmp/nodeagent-test.lock"
)

// Leaks looks at the machine now and, when the test has ended and cleaned up, once more, and fails the test when
// something is there that was not: mounts, network namespaces, links, addresses, routes, packet filter rules, cgroups,
// processes, files of ours in shared folders, descriptors and goroutines. What contains one of the ignored strings does
// not count. While such a test runs no other one does, in other processes on this machine neither.
func Leaks(t testing.TB, ignored ...string) {
	t.Helper()
	unlock, err := lockMachine()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unlock)
	goroutines := goleak.IgnoreCurrent()
	before, err := leak.Take()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		var left []string
		err := poll(leakLimit, func() error {
			after, err := leak.Take()
			if err != nil {
				return err
			}
			if left = before.Newer(after, ignored...); len(left) > 0 {
				return fmt.Errorf("%d things left", len(left))
			}
			return nil
		})
		if err != nil {
			t.Errorf("left behind: %v\n  %s", err, strings.Join(left, "\n  "))
		}
		if err := goleak.Find(goroutines); err != nil {
			t.Errorf("left behind: %v", err)
		}
	})
}

// machine is the lock that lets one test at a time look at the machine. Tests of one process share it, since a
// subtest may check too.
var machine struct {
	mu      sync.Mutex
	holders int
	file    *os.File
}

func lockMachine() (unlock func(), err error) {
	machine.mu.Lock()
	defer machine.mu.Unlock()
	if machine.holders == 0 {
		f, err := os.OpenFile(lockPath, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open lock of the machine: %w", err)
		}
		err = poll(lockLimit, func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) })
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock the machine: %w", err)
		}
		machine.file = f
	}
	machine.holders++
	return unlockMachine, nil
}

func unlockMachine() {
	machine.mu.Lock()
	defer machine.mu.Unlock()
	if machine.holders--; machine.holders == 0 {
		machine.file.Close()
		machine.file = nil
	}
}
