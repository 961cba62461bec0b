package cli

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// sizes are those at which output has been cut elsewhere: powers of two, one more and one less.
func sizes() (all []int) {
	for _, power := range []int{16, 20, 22} {
		all = append(all, 1<<power-1, 1<<power, 1<<power+1)
	}
	return all
}

// ways are the commands that output takes different ways through.
var ways = []struct {
	name string
	args func(size int) []string
	tty  bool
}{
	{"run", func(n int) []string { return []string{"run", "--rm", "busybox", "sh", "-c", produce(n)} }, false},
	{"run -t", func(n int) []string { return []string{"run", "--rm", "-t", "busybox", "sh", "-c", produce(n)} }, true},
	{"exec", func(n int) []string { return []string{"exec", "idle", "sh", "-c", produce(n)} }, false},
	{"exec -t", func(n int) []string { return []string{"exec", "-t", "idle", "sh", "-c", produce(n)} }, true},
}

// produce is a command that writes n bytes without a newline.
func produce(n int) string { return "head -c " + strconv.Itoa(n) + " /dev/zero | tr '\\0' x" }

// Output is whole, whatever its size and the way it takes, also when its reader is slow: what a container writes last is
// what people look for.
func TestOutputIsWhole(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	agent := testenv.Agent(t, testenv.AgentOptions{Registry: testenv.Registry(t)})
	agent.Nodectl("pull", "-q", "busybox")
	agent.Nodectl("run", "-d", "--name", "idle", "busybox", "sleep", "1000")
	for _, way := range ways {
		for _, size := range sizes() {
			for _, slow := range []bool{false, true} {
				if slow && size != 1<<20 {
					continue
				}
				if got := read(t, agent, way.tty, slow, way.args(size)); got != size {
					t.Errorf("%s, slow %v: %d bytes in place of %d", way.name, slow, got, size)
				}
			}
		}
	}
	for _, size := range sizes() {
		name := fmt.Sprintf("logged-%d", size)
		agent.Nodectl("run", "-d", "--name", name, "busybox", "sh", "-c", produce(size))
		agent.Nodectl("wait", name)
		if got := read(t, agent, false, false, []string{"logs", name}); got != size {
			t.Errorf("logs: %d bytes in place of %d", got, size)
		}
	}
}

// read counts what nodectl writes. A slow reader takes a little at a time.
func read(t *testing.T, agent *testenv.AgentProcess, tty, slow bool, args []string) int {
	t.Helper()
	cmd := exec.Command(testenv.Binary(t, "nodectl"), args...)
	cmd.Env = append(os.Environ(), "NODEAGENT_HOST=unix://"+agent.Socket)
	var out io.ReadCloser
	var err error
	if tty {
		out, err = pty.Start(cmd)
	} else if out, err = cmd.StdoutPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	total, buffer := 0, make([]byte, 64<<10)
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	for {
		if slow {
			<-tick.C
			buffer = buffer[:4<<10]
		}
		n, err := out.Read(buffer)
		total += n
		if err != nil {
			break // of a terminal whose other end is closed: EIO
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %v", args, err)
	}
	return total
}
