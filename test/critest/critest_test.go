package critest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// runnable is how many specs run, and pass, on a host without AppArmor and SELinux; one more cannot pass.
const runnable = 107

// exceptions are the specs that cannot pass here, with the reason.
var exceptions = map[string]string{
	"public image with digest should be pulled and removed": "names the digest of an image that only its public registry has",
	"AppArmor": "needs a kernel with AppArmor and a parser for its profiles",
}

// limit bounds the whole suite, which takes a minute and a half.
const limit = 15 * time.Minute

// modes are the ways in which the suite is run. Only streaming specs look at the flags for WebSocket, so that a run of
// the others with them tells nothing new.
var modes = []struct {
	name, focus string
	args        []string
}{
	{name: "SPDY"},
	{name: "WebSocket", focus: "Streaming", args: []string{"-websocket-exec", "-websocket-attach", "-websocket-portforward"}},
	{name: "parallel", args: []string{"-parallel", "4"}},
}

// The suite passes in each mode, NODEAGENT_TEST_CRITEST_RUNS times (once by default).
func TestConformance(t *testing.T) {
	testenv.Root(t)
	if testing.Short() {
		t.Skip("runs for minutes")
	}
	testenv.Leaks(t)
	runs := 1
	if text := os.Getenv("NODEAGENT_TEST_CRITEST_RUNS"); text != "" {
		var err error
		if runs, err = strconv.Atoi(text); err != nil {
			t.Fatalf("NODEAGENT_TEST_CRITEST_RUNS: %v", err)
		}
	}
	testenv.Tool(t, "ginkgo")
	socket := endpoint(t)
	for _, mode := range modes {
		for range runs {
			t.Run(mode.name, func(t *testing.T) {
				focus := mode.focus
				if runs > 1 {
					focus = ""
				}
				if other := os.Getenv("NODEAGENT_TEST_FOCUS"); other != "" {
					focus = other
				}
				judge(t, runSuite(t, socket, focus, mode.args), focus == "")
			})
		}
	}
}

// judge fails the test for each spec that failed, unless it cannot pass here, and when a whole run lacks some.
func judge(t *testing.T, specs []spec, whole bool) {
	t.Helper()
	var passed int
	for _, one := range specs {
		switch {
		case one.passed():
			passed++
		case excused(one.Name) != "":
			t.Logf("not possible here: %s: %s", one.Name, excused(one.Name))
		default:
			t.Errorf("failed: %s: %s", one.Name, one.reason())
		}
	}
	t.Logf("critest: %d specs ran, %d passed", len(specs), passed)
	if passed == 0 || whole && passed < runnable {
		t.Errorf("%d specs passed, %d must", passed, runnable)
	}
}

// endpoint starts an agent with the suite's images in reach and returns its socket's address.
func endpoint(t *testing.T) string {
	if other := os.Getenv("NODEAGENT_TEST_ENDPOINT"); other != "" {
		return other
	}
	agent := testenv.Agent(t, testenv.AgentOptions{Registry: testenv.Registry(t)})
	return "unix://" + agent.Socket
}

func runSuite(t *testing.T, endpoint, focus string, args []string) []spec {
	dir := t.TempDir()
	report := filepath.Join(dir, "junit.xml")
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	binary := testenv.Tool(t, "critest")
	cmd := exec.CommandContext(ctx, binary, append(args, "-runtime-endpoint", endpoint, "-image-endpoint", endpoint,
		"-ginkgo.junit-report", report, "-ginkgo.no-color")...)
	if focus != "" {
		cmd.Args = append(cmd.Args, "-ginkgo.focus", focus)
	}
	// With -parallel it looks for ginkgo there.
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	log := filepath.Join(testenv.CacheDir(), "critest.log")
	if err := os.WriteFile(log, out, 0o644); err != nil {
		t.Error(err)
	}
	t.Logf("the suite's own output is in %s; it ended with: %v", log, err)
	specs, err := readReport(report)
	if err != nil {
		t.Fatalf("%v; the end of the suite's output:\n%s", err, tail(string(out)))
	}
	return specs
}

// excused returns why the spec cannot pass here, or nothing.
func excused(name string) string {
	for part, reason := range exceptions {
		if strings.Contains(name, part) {
			return reason
		}
	}
	return ""
}

func tail(text string) string {
	const most = 4 << 10
	return text[max(0, len(text)-most):]
}
