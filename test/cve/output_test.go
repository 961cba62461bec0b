package cve

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// CVE-2022-31030, CVE-2022-1708: output of ExecSync without end, all of it kept in memory.
func TestCVE202231030ExecSyncOutput(t *testing.T) {
	n := newNode(t)
	id, _ := n.running(idle("yes"))
	const limit = 16 << 20
	answer, err := n.ExecSync(id, 30, "sh", "-c", "head -c 300m /dev/zero; echo end >&2")
	n.Must("exec", err)
	if size := len(answer.Stdout); size > limit || size < limit-8192 || string(answer.Stderr) != "end\n" {
		t.Errorf("%d bytes, and %q", size, answer.Stderr)
	}
	before := memory(t, n.Pid(), "VmHWM")
	begin := time.Now()
	if _, err := n.ExecSync(id, 2, "yes"); status.Code(err) != codes.DeadlineExceeded || time.Since(begin) > quick {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
	if more := memory(t, n.Pid(), "VmHWM") - before; more > 3*limit {
		t.Errorf("the agent took %d MiB more than for 16 MiB", more>>20)
	}
	if left := n.Exec(id, "sh", "-c", "pidof yes | wc -w"); left != "0\n" {
		t.Errorf("left: %s", left)
	}
}

// sizes are those at which output has been cut: powers of two, and one more and less.
func sizes() (all []int) {
	for power := 20; power <= 22; power++ {
		all = append(all, 1<<power-1, 1<<power, 1<<power+1)
	}
	return all
}

// Output is not cut at its end, whatever its size and the way it takes.
func TestOutputIsWhole(t *testing.T) {
	n := newNode(t)
	id, _ := n.running(idle("output"))
	config := n.podConfig()
	pod := n.RunPod(config)
	for _, size := range sizes() {
		// Lines of ten characters, the last of which may be shorter.
		print := fmt.Sprintf("yes 123456789 | head -c %d", size)
		want := strings.Repeat("123456789\n", size/10+1)[:size]
		if got := n.Exec(id, "sh", "-c", print); got != want {
			t.Errorf("ExecSync gives %d of %d bytes", len(got), size)
		}
		for _, tty := range []bool{false, true} {
			got := n.streamed(id, tty, "sh", "-c", "stty raw 2>/dev/null; "+print)
			if got != want {
				t.Errorf("exec gives %d of %d bytes, terminal %v", len(got), size, tty)
			}
		}
		ctr := pods.Shell(fmt.Sprintf("log-%d", size), print)
		n.Ended(n.Started(pod, config, ctr))
		if got := n.logText(filepath.Join(config.LogDirectory, ctr.LogPath)); got != want {
			t.Errorf("the log gives %d of %d bytes", len(got), size)
		}
	}
}

// counting writes numbers, as fast as it can, until the file /v/end is there. It ends with a line "end".
func counting(t *testing.T, name string) (*runtimeapi.ContainerConfig, func()) {
	t.Helper()
	dir := t.TempDir()
	ctr := pods.Shell(name, `i=0; while [ ! -e /v/end ]; do seq $i $((i+9999)); i=$((i+10000)); done; echo end`)
	ctr.Mounts = []*runtimeapi.Mount{volume(dir, "/v")}
	return ctr, func() { write(t, filepath.Join(dir, "end"), "") }
}

// counted checks that every number is there once, and returns how many there are.
func counted(t *testing.T, text string) (count int) {
	t.Helper()
	for line := range strings.Lines(text) {
		if line == "end\n" {
			return count
		}
		if line != strconv.Itoa(count)+"\n" {
			t.Fatalf("line %d is %q", count, line)
		}
		count++
	}
	t.Fatal("the end is missing")
	return 0
}

// A log that is rotated over and over loses no line and doubles none.
func TestRotation(t *testing.T) {
	n := newNode(t)
	ctr, end := counting(t, "rotated")
	id, logs := n.running(ctr)
	path := filepath.Join(logs, ctr.LogPath)
	var paths []string
	for i := range 20 {
		seen := size(path)
		testenv.Eventually(t, eventLimit, "the log grows", func() error {
			if size(path) == seen {
				return fmt.Errorf("it has %d bytes", seen)
			}
			return nil
		})
		rotated := fmt.Sprintf("%s.%d", path, i)
		n.Must("rename log", os.Rename(path, rotated))
		paths = append(paths, rotated)
		ctx, cancel := n.Context()
		_, err := n.Runtime().ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id})
		cancel()
		n.Must("reopen log", err)
	}
	end()
	n.Ended(id)
	if count := counted(t, n.logText(append(paths, path)...)); count < 100000 {
		t.Errorf("%d lines are too few to tell", count)
	}
}

func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// A container writes on while the agent is stopped or dead, and no line is lost.
func TestLogsWithoutTheAgent(t *testing.T) {
	n := newNode(t)
	ctr, end := counting(t, "alone")
	id, logs := n.running(ctr)
	path := filepath.Join(logs, ctr.LogPath)
	// grows waits for much more than all pipes and buffers on the way hold.
	grows := func(when string) {
		t.Helper()
		before := size(path)
		testenv.Eventually(t, eventLimit, "the log grows with the agent "+when, func() error {
			if more := size(path) - before; more < 4<<20 {
				return fmt.Errorf("by %d bytes", more)
			}
			return nil
		})
	}
	grows("running")
	n.Must("stop the agent", syscall.Kill(n.Pid(), syscall.SIGSTOP))
	grows("stopped")
	n.Must("continue the agent", syscall.Kill(n.Pid(), syscall.SIGCONT))
	n.Kill9()
	grows("dead")
	n.Start()
	end()
	n.Ended(id)
	if count := counted(t, n.logText(path)); count < 10000 {
		t.Errorf("%d lines", count)
	}
}

// A disk that was full leaves no record torn, to which the next one would be joined.
func TestLogDiskWasFull(t *testing.T) {
	n := newNode(t)
	disk, v := t.TempDir(), t.TempDir()
	n.Must("mount", unix.Mount("full", disk, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { n.Must("unmount", unix.Unmount(disk, unix.MNT_DETACH)) })
	ballast := filepath.Join(disk, "ballast")
	write(t, ballast, strings.Repeat("x", 1<<19))
	config := n.podConfig()
	config.LogDirectory = disk
	ctr := pods.Shell("full", `yes 123456789012345678901234567890123456 | head -c 2m; touch /v/written; while [ ! -e /v/room ]; do usleep 10000; done; echo; echo after`)
	ctr.Mounts = []*runtimeapi.Mount{volume(v, "/v")}
	id := n.Started(n.RunPod(config), config, ctr)
	testenv.Eventually(t, eventLimit, "the container goes on", func() error {
		_, err := os.Stat(filepath.Join(v, "written"))
		return err
	})
	n.Must("make room", os.Remove(ballast))
	write(t, filepath.Join(v, "room"), "")
	n.Ended(id)
	lines := 0
	text := n.logText(filepath.Join(disk, ctr.LogPath))
	for line := range strings.Lines(text) {
		lines++
		if !strings.HasPrefix("123456789012345678901234567890123456\n", strings.TrimSpace(line)) && line != "after\n" {
			t.Fatalf("line %d is %.300q", lines, line)
		}
	}
	if lines < 1000 || !strings.HasSuffix(text, "after\n") {
		t.Errorf("%d lines, the last of them %.100q", lines, text[max(0, len(text)-100):])
	}
}

// A full disk loses what is logged meanwhile, and neither stops nor slows the container; afterwards the log goes on.
func TestLogDiskIsFull(t *testing.T) {
	n := newNode(t)
	disk, v := t.TempDir(), t.TempDir()
	n.Must("mount", unix.Mount("full", disk, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { n.Must("unmount", unix.Unmount(disk, unix.MNT_DETACH)) })
	config := n.podConfig()
	config.LogDirectory = disk
	ctr := pods.Shell("full", `yes line | head -c 4m; touch /v/written; while [ ! -e /v/room ]; do usleep 10000; done; echo; echo after; exec sleep 1000`)
	ctr.Mounts = []*runtimeapi.Mount{volume(v, "/v")}
	id := n.Started(n.RunPod(config), config, ctr)
	testenv.Eventually(t, eventLimit, "the container goes on", func() error {
		_, err := os.Stat(filepath.Join(v, "written"))
		return err
	})
	path := filepath.Join(disk, ctr.LogPath)
	if size(path) > 1<<20 {
		t.Errorf("the log has %d bytes", size(path))
	}
	n.Must("rotate", os.Rename(path, path+".0"))
	n.Must("make room", os.Truncate(path+".0", 0))
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	_, err := n.Runtime().ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id})
	n.Must("reopen log", err)
	write(t, filepath.Join(v, "room"), "")
	testenv.Eventually(t, eventLimit, "the log goes on", func() error {
		if text, err := os.ReadFile(path); err != nil || !strings.HasSuffix(string(text), " after\n") {
			return fmt.Errorf("it has %.200q, %v", text, err)
		}
		return nil
	})
}
