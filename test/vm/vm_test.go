package vm

import (
	"context"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// limit bounds building the machine's files and running it.
const limit = 7 * time.Minute

var (
	begins = regexp.MustCompile(`^vm: begin (\S+)$`)
	ends   = regexp.MustCompile(`^vm: end (\S+) (\d+)$`)
	result = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+)`)
)

// TestMachine boots the machine where nobody owns the cgroups, and tells each of its jobs, and each test in them, as a
// test of its own.
func TestMachine(t *testing.T) { machine(t, 5) }

// TestMachineWithSystemd boots the one where systemd owns them.
func TestMachineWithSystemd(t *testing.T) { machine(t, 2, "-systemd") }

func machine(t *testing.T, jobs int, args ...string) {
	if testing.Short() {
		t.Skip("a minute long")
	}
	testenv.Program(t, "qemu-system-x86_64", "qemu-system-x86")
	testenv.Binary(t, "nodeagent")
	testenv.CNIPlugins(t)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", append([]string{"run", "./hack/vm"}, args...)...)
	cmd.Dir, cmd.WaitDelay = testenv.Repository(), time.Second
	out, err := cmd.CombinedOutput()
	serial := strings.ReplaceAll(string(out), "\r", "")
	if strings.Contains(serial, "the distribution has no package linux-image-cloud-amd64") {
		t.Skip("the distribution has no kernel for the machine under Debian's name")
	}
	if err != nil {
		t.Fatalf("go run ./hack/vm: %v\n%s", err, serial)
	}
	lines := strings.Split(serial, "\n")
	for i, line := range lines {
		// The firmware's last line has no end.
		if at := strings.Index(line, "vm: begin "); at > 0 {
			line = line[at:]
		}
		if found := begins.FindStringSubmatch(line); found != nil {
			t.Run(found[1], func(t *testing.T) { job(t, lines[i+1:]) })
		}
	}
	if t.Failed() || !strings.Contains(serial, "\nvm: done\n") || strings.Count(serial, "vm: end ") != jobs {
		t.Errorf("the machine did not do all of its jobs well:\n%s", serial)
	}
}

// job reports the tests of one job and how it ended.
func job(t *testing.T, lines []string) {
	for _, line := range lines {
		if found := result.FindStringSubmatch(line); found != nil {
			t.Run(found[2], func(t *testing.T) {
				switch found[1] {
				case "FAIL":
					t.Error("failed in the machine")
				case "SKIP":
					t.Skip("skipped in the machine")
				}
			})
		}
		if found := ends.FindStringSubmatch(line); found != nil {
			if found[2] != "0" {
				t.Errorf("exit code %s", found[2])
			}
			return
		}
	}
	t.Error("it did not end")
}
