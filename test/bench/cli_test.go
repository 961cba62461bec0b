package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

const (
	// runs is how often a container is run by each, lists how often containers are listed.
	runs, lists = 20, 30
	// manyContainers are those that ps lists, maxListRatio of its time what that may take.
	manyContainers = 100
	maxListRatio   = 1.5
	// maxRunRatio of our median to ctr's is what this project promises.
	maxRunRatio = 0.4
)

// The command lines, with the same network configuration and image: a container that runs true, and a list of many.
func TestCLI(t *testing.T) {
	testenv.Root(t)
	if os.Getenv("NODEAGENT_TEST_BENCH") != "yes" {
		t.Skip("measures; run make bench-cli")
	}
	registry := testenv.Registry(t)
	dir, err := os.MkdirTemp("", "bench-cli-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	conf := network(t, "benchcli", "10.233.0.0/16")
	coverFolder(t, "/etc/cni/net.d", conf)
	coverFolder(t, "/opt/cni/bin", testenv.CNIPlugins(t))
	newPeer(t, "containerd", dir, startContainerd(t, dir, conf, registry))
	agent := testenv.Agent(t, testenv.AgentOptions{Registry: registry, CNIConfDir: conf, CNIBinDir: testenv.CNIPlugins(t), Args: []string{"--log-level", "info"}})
	newPeer(t, "nodeagent", agent.Dir, agent.Conn())

	serial := 0
	ctr := func() []string {
		serial++
		return []string{testenv.Tool(t, "ctr"), "--address", filepath.Join(dir, "sock"), "--namespace", "k8s.io", "run", "--rm", "--cni",
			"--runc-binary", testenv.Tool(t, "runc"), images.Busybox, fmt.Sprintf("bench-%d", serial), "true"}
	}
	nodectl := []string{testenv.Binary(t, "nodectl"), "--host", "unix://" + agent.Socket}
	ours := func() []string { return append(nodectl[:3:3], "run", "--rm", images.Busybox, "true") }
	// What leaves behind a run's back is gone before ctr's turn: it answers whoever asks for containers after that.
	settle := func() { execute(t, append(nodectl[:3:3], "ps", "-q")) }
	their, our := timeBoth(t, runs, settle, ctr, ours)
	compare(t, "run --rm IMAGE true", "ctr", their, our, maxRunRatio)

	// A second agent has one container, so that both lists are timed in the same moments.
	quiet := testenv.Agent(t, testenv.AgentOptions{Registry: registry, Args: []string{"--log-level", "info"}})
	newPeer(t, "another nodeagent", quiet.Dir, quiet.Conn())
	few := []string{testenv.Binary(t, "nodectl"), "--host", "unix://" + quiet.Socket}
	start := []string{"run", "-d", images.Busybox, "sleep", "1000"}
	execute(t, append(few[:3:3], start...))
	for range manyContainers {
		execute(t, append(nodectl[:3:3], start...))
	}
	one, many := timeBoth(t, lists, func() {}, func() []string { return append(few[:3:3], "ps") }, func() []string { return append(nodectl[:3:3], "ps") })
	compare(t, fmt.Sprintf("ps of %d containers", manyContainers), "ps of 1", one, many, maxListRatio)
}

// coverFolder puts a folder in place of one that ctr always reads; the benchmark has a mount namespace of its own.
func coverFolder(t *testing.T, path, by string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(by, path, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount %s on %s: %v", by, path, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
}

// timeBoth gives the medians of two commands, which take turns; between is called after each and not timed. The first
// round is not counted.
func timeBoth(t *testing.T, rounds int, between func(), a, b func() []string) (time.Duration, time.Duration) {
	t.Helper()
	commands := []func() []string{a, b}
	timings := make([][]time.Duration, len(commands))
	for round := range rounds + 1 {
		for turn := range commands {
			who := (round + turn) % len(commands)
			took := execute(t, commands[who]())
			between()
			if round > 0 {
				timings[who] = append(timings[who], took)
			}
		}
	}
	return median(timings[0]), median(timings[1])
}

// execute runs a command to its end, which must be a good one, and says how long that took.
func execute(t *testing.T, args []string) time.Duration {
	t.Helper()
	began := time.Now()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
	return time.Since(began)
}

func compare(t *testing.T, name, than string, their, our time.Duration, most float64) {
	t.Helper()
	ratio := float64(our) / float64(their)
	fmt.Printf("%-24s %7.1f ms, %-8s %7.1f ms, ratio %.3f, at most %.2f\n", name, our.Seconds()*1000, than, their.Seconds()*1000, ratio, most)
	if ratio > most {
		t.Errorf("%s takes %.3f of %s, at most %.2f is allowed", name, ratio, than, most)
	}
}
