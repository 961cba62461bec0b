package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

const (
	// dirtyRounds is how often the test tries: the kernel writes by itself, too, what is old, or when others on the
	// machine do much.
	dirtyRounds = 3
	// dirtyLag is what a pod may take longer beside dirty data, at the 99th percentile. Writing a gigabyte takes
	// three times as long on a fast disk.
	dirtyLag = 100 * time.Millisecond
)

// Pods start and go beside much that is written and not yet on the disk, on the filesystem of the agent, and none of it
// is written for their sake. With make soak there are gigabytes, and enough pods for a 99th percentile.
func TestPodsBesideDirtyData(t *testing.T) {
	testenv.Root(t)
	size, rounds, pods := int64(192<<20), dirtyRounds, 3
	if soak() {
		size, rounds, pods = min(4<<30, backgroundThreshold(t)*3/4), 8, 13
	}
	// ext4 begins to write when it has less than twice as much free as is dirty.
	disk := testenv.NewDisk(t, 4*size+1<<30)
	t.Setenv("TMPDIR", disk.Dir)
	n := newNode(t, testenv.AgentOptions{Args: []string{"--log-level", "info"}})
	n.Pull(images.Busybox)
	n.timedPod() // the network's bridge comes with the first
	unix.Sync()  // what the pull left
	file := newDirtyFile(t, filepath.Join(disk.Dir, "dirty"), size)
	var alone, beside podTimes
	kept := 0
	for range rounds {
		for range pods {
			alone.add(n.timedPod())
		}
		file.write()
		for range pods {
			beside.add(n.timedPod())
		}
		if share := file.dirty(); share > 0.9 {
			kept++
		} else {
			t.Logf("%.0f %% of the data are still dirty", 100*share)
		}
		file.drop()
	}
	if kept == 0 {
		t.Error("the data were written each time")
	}
	t.Logf("in %d of %d rounds nearly all of the data stayed dirty", kept, rounds)
	t.Logf("alone: %s; beside %d MB of dirty data: %s", alone, size/1e6, beside)
	if lag := beside.start.p(99) - alone.start.p(99); soak() && lag > dirtyLag {
		t.Errorf("a pod starts %s later", lag)
	}
	if lag := beside.end.p(99) - alone.end.p(99); soak() && lag > dirtyLag {
		t.Errorf("a pod goes %s later", lag)
	}
}

// timedPod makes and removes a pod with a container that writes into its layer, and tells how long both took.
func (n *node) timedPod() (start, end time.Duration) {
	n.t.Helper()
	config := n.podConfig("beside")
	began := time.Now()
	pod := n.RunPod(config)
	container := n.Started(pod, config, pods.Shell("writes", "dd if=/dev/zero of=/file bs=64k count=16 2>/dev/null && exec sleep 1000"))
	start = time.Since(began)
	n.Exec(container, "sh", "-c", "until [ $(stat -c %s /file) = 1048576 ]; do :; done")
	began = time.Now()
	n.StopContainer(container, 0)
	n.RemovePod(pod)
	return start, time.Since(began)
}

type durations []time.Duration

// p is a percentile.
func (d durations) p(percent int) time.Duration {
	return slices.Sorted(slices.Values(d))[(len(d)-1)*percent/100].Round(time.Millisecond / 10)
}

type podTimes struct{ start, end durations }

func (p *podTimes) add(start, end time.Duration) {
	p.start, p.end = append(p.start, start), append(p.end, end)
}

// String has medians and 99th percentiles.
func (p podTimes) String() string {
	return "start " + p.start.p(50).String() + ", p99 " + p.start.p(99).String() +
		", end " + p.end.p(50).String() + ", p99 " + p.end.p(99).String()
}

// dirtyFile is a file that is in memory for the most part.
type dirtyFile struct {
	t    *testing.T
	path string
	size int64
	f    *os.File
}

func newDirtyFile(t *testing.T, path string, size int64) *dirtyFile {
	d := &dirtyFile{t: t, path: path, size: size}
	t.Cleanup(d.drop)
	return d
}

func (d *dirtyFile) write() {
	d.t.Helper()
	var err error
	if d.f, err = os.Create(d.path); err != nil {
		d.t.Fatal(err)
	}
	chunk := make([]byte, 1<<20)
	for written := int64(0); written < d.size; written += int64(len(chunk)) {
		if _, err := d.f.Write(chunk); err != nil {
			d.t.Fatal(err)
		}
	}
}

// dirty is the share of the file that nobody has begun to write.
func (d *dirtyFile) dirty() float64 {
	d.t.Helper()
	var st unix.Cachestat_t
	err := unix.Cachestat(uint(d.f.Fd()), &unix.CachestatRange{}, &st, 0)
	if err == unix.ENOSYS {
		d.t.Skip("this kernel does not tell what is dirty")
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return float64(st.Dirty) * float64(os.Getpagesize()) / float64(d.size)
}

// drop forgets what was not written, so that nobody waits for it.
func (d *dirtyFile) drop() {
	if d.f != nil {
		d.f.Close()
		os.Remove(d.path)
	}
	d.f = nil
}

// backgroundThreshold is how much may be dirty before the kernel begins to write by itself, in bytes.
func backgroundThreshold(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == "nr_dirty_background_threshold" {
			pages, _ := strconv.ParseInt(value, 10, 64)
			return pages * int64(os.Getpagesize())
		}
	}
	t.Fatal("the kernel does not tell its threshold")
	return 0
}
