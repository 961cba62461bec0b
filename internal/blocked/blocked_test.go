package blocked

import (
	"context"
	"os"
	"runtime/pprof"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hang opens a FIFO that nobody writes to, which blocks in openat.
func hang(path string) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
}

func TestHangIsNamed(t *testing.T) {
	path := t.TempDir() + "/fifo"
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		pprof.Do(context.Background(), pprof.Labels("operation", "17"), func(context.Context) { hang(path) })
	}()
	t.Cleanup(func() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_ = f.Close()
		}
		<-done
	})
	deadline := time.Now().Add(10 * time.Second)
	var waits []string
	var threads []Thread
	for time.Now().Before(deadline) {
		waits, threads = Goroutines("operation")["17"], Threads(os.Getpid())
		for _, thread := range threads {
			if thread.Path == path && thread.Syscall == "openat" && len(waits) == 1 {
				if !strings.HasPrefix(waits[0], InKernel+" < internal/blocked.hang") {
					t.Errorf("waits in %q", waits[0])
				}
				if !strings.Contains(thread.String(), `openat("`+path+`")`) {
					t.Error(thread.String())
				}
				return
			}
		}
	}
	t.Fatalf("goroutines %q, threads %v", waits, threads)
}

func TestParseProfile(t *testing.T) {
	profile := `goroutine profile: total 4
1 @ 0x1 0x2
# labels: {"operation":"4", "program":"flannel (PID 7)"}
#	0x1	syscall.Syscall6+0x1f	/x/a.go:1
#	0x2	os.(*Process).Wait+0x1f	/x/b.go:1
#	0x2	os/exec.(*Cmd).Wait+0x1f	/x/c.go:1
#	0x2	github.com/nodeagent/nodeagent/network.runOnce+0x30	/x/exec.go:4

1 @ 0x1 0x2
# labels: {"operation":"3", "other":"x"}
#	0x1	sync.(*Mutex).Lock+0x1f	/x/mutex.go:1
#	0x2	github.com/nodeagent/nodeagent/network.(*Manager).Del+0x30	/x/del.go:4

1 @ 0x1
# labels: {"operation":"3"}
#	0x1	sync.(*WaitGroup).Wait+0x1f	/x/wait.go:1

1 @ 0x1
#	0x1	main.main+0x1f	/x/main.go:1
`
	got := parseProfile([]byte(profile), "operation")
	if len(got) != 2 || len(got["3"]) != 1 || got["3"][0] != "a lock < network.(*Manager).Del" ||
		len(got["4"]) != 1 || got["4"][0] != "the program flannel (PID 7) < network.runOnce" {
		t.Errorf("%q", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("1 @\n# labels: {\"operation\":\"1\"}\n#\t0x1\ta.b+0x1\tx\n\n", "12 (a) b) D 1", "[<0>] f+0x1/0x2\n", "257 0x0 0x10")
	f.Fuzz(func(t *testing.T, profile, stat, stack, call string) {
		parseProfile([]byte(profile), "operation")
		_ = stateOf(stat)
		_ = parseStack(stack)
		if c, ok := syscallOf(strings.Fields(call)); ok && c.name == "" {
			t.Error("a call without a name")
		}
		readPath(strings.NewReader("/a\x00"), call)
	})
}
