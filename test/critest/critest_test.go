package critest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// floor is the least number of specs that must pass on a host without AppArmor and SELinux. It only ever rises.
const floor = 105

// exceptions are the specs that cannot pass here, with the reason.
var exceptions = map[string]string{
	"public image with digest should be pulled and removed": "names the digest of an image that only its public registry has",
	"AppArmor": "needs a kernel with AppArmor and a parser for its profiles",
}

// limit bounds the whole suite, which takes a minute and a half.
const limit = 15 * time.Minute

func TestConformance(t *testing.T) {
	testenv.Root(t)
	if testing.Short() {
		t.Skip("runs for minutes")
	}
	testenv.Leaks(t)
	binary := testenv.Tool(t, "critest")
	specs := runSuite(t, binary, endpoint(t))
	var passed, failed int
	for _, one := range specs {
		switch {
		case one.passed():
			passed++
		case excused(one.Name) != "":
			t.Logf("not possible here: %s: %s", one.Name, excused(one.Name))
		default:
			failed++
			t.Logf("failed: %s: %s", one.Name, one.reason())
		}
	}
	t.Logf("critest: %d specs ran, %d passed, %d failed", len(specs), passed, failed)
	if os.Getenv("NODEAGENT_TEST_FOCUS") != "" {
		return
	}
	if passed < floor {
		t.Errorf("%d specs passed, at least %d must", passed, floor)
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

func runSuite(t *testing.T, binary, endpoint string) []spec {
	dir := t.TempDir()
	report := filepath.Join(dir, "junit.xml")
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-runtime-endpoint", endpoint, "-image-endpoint", endpoint,
		"-ginkgo.junit-report", report, "-ginkgo.no-color")
	if focus := os.Getenv("NODEAGENT_TEST_FOCUS"); focus != "" {
		cmd.Args = append(cmd.Args, "-ginkgo.focus", focus)
	}
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
