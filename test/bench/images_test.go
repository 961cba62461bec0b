package bench

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/bigimages"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

var (
	snapshotters = flag.String("snapshotters", "overlay", "snapshotters of ours to measure, separated by commas")
	pullRounds   = flag.Int("rounds", 3, "how often each image is pulled by each")
	pullOnly     = flag.String("only", bigimages.A+","+bigimages.B+","+bigimages.C, "images to pull, separated by commas")
)

// maxPullRatio of our median time to containerd's, by snapshotter and image, is what this project promises.
var maxPullRatio = map[string]map[string]float64{
	"overlay": {bigimages.A: 0.50, bigimages.B: 0.25, bigimages.C: 0.65},
	"erofs":   {bigimages.A: 0.25, bigimages.C: 0.40},
}

const (
	// maxPullMB is the agent's peak memory while it pulls A.
	maxPullMB = 150
	pullLimit = 4 * time.Minute
	// diskSize of a runtime's filesystem, in bytes; its file is sparse.
	diskSize = 12 << 30
)

// puller is a runtime that pulls: containerd, or the agent with a snapshotter.
type puller struct {
	name    string
	start   func(t *testing.T, certs string) (images runtimeapi.ImageServiceClient, pid int)
	timings map[string][]time.Duration
	// cpu is the processor time of the runtime's own processes, which says
	// more than the time on a machine that does other things as well.
	cpu    map[string][]time.Duration
	peakMB float64
}

// Pulls of big, many-layered and single-layered images, here and in containerd. Each pull has a runtime and a
// filesystem of its own: ext4 is slow where many files were removed lately.
func TestImages(t *testing.T) {
	testenv.Root(t)
	if os.Getenv("NODEAGENT_TEST_BENCH") != "yes" {
		t.Skip("measures; run make bench-images")
	}
	layout, ok := bigimages.Cached(filepath.Join(testenv.CacheDir(), "bigimages"))
	if !ok {
		t.Fatal("there are no images to pull; run make bench-images")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*limit)
	defer cancel()
	registry := testenv.StoredRegistry(t, layout+"-registry", func(base string) error { return images.Push(ctx, layout, base) })
	certs := mirrorOf(t, registry.URL)
	pullers := []*puller{{name: "containerd", start: startTheirs}}
	for name := range strings.SplitSeq(*snapshotters, ",") {
		pullers = append(pullers, &puller{name: name, start: func(t *testing.T, certs string) (runtimeapi.ImageServiceClient, int) {
			return startOurs(t, name, certs)
		}})
	}
	for ref := range strings.SplitSeq(*pullOnly, ",") {
		for round := range *pullRounds {
			for _, p := range pullers {
				t.Run(fmt.Sprintf("%s %s %d", p.name, ref, round), func(t *testing.T) { p.pull(ctx, t, ref, certs) })
			}
		}
	}
	if t.Failed() {
		return
	}
	report(t, layout, pullers)
	t.Run("one transfer for two", func(t *testing.T) { sharedPull(ctx, t, layout, registry.URL) })
}

// mirrorOf writes a certs.d folder that sends the images' registry to another.
func mirrorOf(t *testing.T, base string) string {
	t.Helper()
	certs := t.TempDir()
	host, _, _ := strings.Cut(bigimages.A, "/")
	if err := os.Mkdir(filepath.Join(certs, host), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(certs, host, "hosts.toml"), fmt.Appendf(nil, "server = %q\n", base), 0o644); err != nil {
		t.Fatal(err)
	}
	return certs
}

// freshDisk makes temporary folders of the test be on an ext4 of its own.
func freshDisk(t *testing.T) {
	t.Helper()
	// Not t.TempDir, whose name is too long for sockets below it.
	top, err := os.MkdirTemp("", "bench-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	file, dir := filepath.Join(top, "disk"), filepath.Join(top, "on")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, diskSize); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", file)
	device := run(t, "losetup", "--find", "--show", "--direct-io=on", file)
	t.Cleanup(func() { run(t, "losetup", "--detach", device) })
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", device, dir)
	t.Cleanup(func() {
		testenv.Eventually(t, 20*time.Second, "the disk is no longer used", func() error { return unix.Unmount(dir, 0) })
	})
	t.Setenv("TMPDIR", dir)
}

func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out := testenv.Run(t, program, args...)
	if out.Code != 0 {
		t.Fatalf("%s %v: %s", program, args, out.Stderr)
	}
	return strings.TrimSpace(out.Stdout)
}

func startTheirs(t *testing.T, certs string) (runtimeapi.ImageServiceClient, int) {
	t.Helper()
	dir, err := os.MkdirTemp("", "bench-containerd-")
	if err != nil {
		t.Fatal(err)
	}
	return runtimeapi.NewImageServiceClient(startContainerd(t, dir, t.TempDir(), &testenv.RegistryServer{CertsDir: certs})), 0
}

func startOurs(t *testing.T, snapshotter, certs string) (runtimeapi.ImageServiceClient, int) {
	t.Helper()
	agent := testenv.Agent(t, testenv.AgentOptions{
		Registry: &testenv.RegistryServer{CertsDir: certs},
		Args:     []string{"--log-level", "info", "--snapshotter", snapshotter},
	})
	return agent.Images(), agent.Pid()
}

// pull times one pull of an image that is not there.
func (p *puller) pull(ctx context.Context, t *testing.T, ref, certs string) {
	ctx, cancel := context.WithTimeout(ctx, pullLimit)
	defer cancel()
	freshDisk(t)
	client, pid := p.start(t, certs)
	unix.Sync() // what was written before must not be waited for
	spec := &runtimeapi.ImageSpec{Image: ref}
	began := time.Now()
	if _, err := client.PullImage(ctx, &runtimeapi.PullImageRequest{Image: spec}); err != nil {
		t.Fatalf("%s: pull %s: %v", p.name, ref, err)
	}
	took := time.Since(began)
	cpu := processorTime(os.Getenv("TMPDIR"))
	t.Logf("%.2f s, %.2f s of processor time", took.Seconds(), cpu.Seconds())
	if p.timings == nil {
		p.timings, p.cpu = map[string][]time.Duration{}, map[string][]time.Duration{}
	}
	p.cpu[ref] = append(p.cpu[ref], cpu)
	p.timings[ref] = append(p.timings[ref], took)
	if pid > 0 && ref == bigimages.A {
		p.peakMB = max(p.peakMB, float64(statusField(fmt.Sprintf("/proc/%d/status", pid), "VmHWM:"))/1000)
	}
}

// processorTime is that of all processes whose command line names a folder.
func processorTime(dir string) (sum time.Duration) {
	const perSecond = 100 // USER_HZ, the same on all of Linux' platforms
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		text, _ := os.ReadFile(path)
		_, rest, ok := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); ok && strings.Contains(string(cmdline), dir) && len(fields) > 14 {
			for _, ticks := range fields[11:15] { // utime, stime, and those of children
				n, _ := strconv.ParseInt(ticks, 10, 64)
				sum += time.Duration(n) * time.Second / perSecond
			}
		}
	}
	return sum
}

func report(t *testing.T, layout string, pullers []*puller) {
	t.Helper()
	theirs := pullers[0]
	fmt.Printf("medians of %d pulls\n%-16s %-12s %10s %8s %8s %10s %8s\n", *pullRounds, "", "", "time", "ratio", "at most", "processor", "ratio")
	for ref := range strings.SplitSeq(*pullOnly, ",") {
		size, err := bigimages.Sizes(layout, ref)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%s: %d layers, %.0f MB compressed, %.0f MB, %d entries\n", ref, size.Layers, float64(size.Compressed)/1e6, float64(size.Bytes)/1e6, size.Files)
		for _, p := range pullers {
			ratio := float64(median(p.timings[ref])) / float64(median(theirs.timings[ref]))
			most, promised := maxPullRatio[p.name][ref]
			cpu := float64(median(p.cpu[ref])) / float64(median(theirs.cpu[ref]))
			fmt.Printf("%-16s %-12s %8.2f s %8.3f %8.2f %8.2f s %8.3f\n", ref, p.name, median(p.timings[ref]).Seconds(), ratio, most, median(p.cpu[ref]).Seconds(), cpu)
			if promised && ratio > most {
				t.Errorf("%s: %s takes %.3f of containerd's time, at most %.2f is allowed", ref, p.name, ratio, most)
			}
		}
	}
	for _, p := range pullers[1:] {
		fmt.Printf("%s: peak memory while pulling %s: %.0f MB (at most %d)\n", p.name, bigimages.A, p.peakMB, maxPullMB)
		if p.peakMB > maxPullMB {
			t.Errorf("%s: the agent took %.0f MB at its peak, at most %d are allowed", p.name, p.peakMB, maxPullMB)
		}
	}
}

// sharedPull has two clients pull A at once, and counts what the registry sends.
func sharedPull(ctx context.Context, t *testing.T, layout, base string) {
	target, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	var sent atomic.Int64
	proxy := httputil.NewSingleHostReverseProxy(target)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxy.ServeHTTP(counting{w, &sent}, r)
	}))
	defer server.Close()
	freshDisk(t)
	client, _ := startOurs(t, "overlay", mirrorOf(t, server.URL))
	results := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := client.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: bigimages.A}})
			results <- err
		}()
	}
	for range 2 {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	size, err := bigimages.Sizes(layout, bigimages.A)
	if err != nil {
		t.Fatal(err)
	}
	ratio := float64(sent.Load()) / float64(size.Compressed)
	fmt.Printf("two pulls of %s at once: the registry sent %.3f times its size\n", bigimages.A, ratio)
	if ratio > 1.01 {
		t.Errorf("two pulls at once cost %.3f transfers", ratio)
	}
}

// counting counts the bytes of answers.
type counting struct {
	http.ResponseWriter
	sent *atomic.Int64
}

func (c counting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.sent.Add(int64(n))
	return n, err
}
