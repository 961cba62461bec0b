package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// SIGHUP makes hold what can, says what cannot, and changes nothing when the file is wrong. The agent goes on.
func TestReload(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	for _, test := range []struct{ config, want string }{
		{"[handlers.other]\n", `level=warning msg="configuration reloaded; some of it holds only after a restart`},
		{"rot = \"/x\"\n", `line 1: unknown key \"rot\"; did you mean \"root\"?`},
		{"", `level=info msg="configuration reloaded"`},
	} {
		if err := os.WriteFile(filepath.Join(n.Dir, "config.toml"), []byte(test.config), 0o600); err != nil {
			t.Fatal(err)
		}
		n.Must("send SIGHUP", syscall.Kill(n.Pid(), syscall.SIGHUP))
		testenv.Eventually(t, eventLimit, "the log tells of the reload", func() error {
			log, err := os.ReadFile(n.LogPath)
			if err != nil || !strings.Contains(string(log), test.want) {
				return fmt.Errorf("no %s: %v", test.want, err)
			}
			return nil
		})
	}
	if out := n.ctl("version"); !strings.Contains(out, "nodeagent") {
		t.Errorf("afterwards: %s", out)
	}
}
