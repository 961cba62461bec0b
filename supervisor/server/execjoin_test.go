package server_test

import (
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/supervisor"
)

// An exec is in all cgroups of its container: on a hybrid host in those of v1
// from its first instruction, in that of v2 when it lives for a moment.
func TestExecIsInCgroups(t *testing.T) {
	n := startNode(t)
	n.start(n.container("one", "sleep 1000"))
	outside := func(out string) (list []string) {
		for line := range strings.Lines(out) {
			if !strings.HasSuffix(line, n.cgroup+"/one\n") {
				list = append(list, line)
			}
		}
		return list
	}
	for _, id := range []string{"a", "b"} {
		out, _ := n.execOutput("one", id, "cat /proc/self/cgroup")
		for _, line := range outside(out) {
			if !strings.HasPrefix(line, "0:") || strings.Count(out, "\n") == 1 {
				t.Errorf("a new exec is in %s", line)
			}
		}
	}
	testenv.Eventually(t, limit, "an exec is in the cgroup of v2", func() error {
		_, err := n.Exec(t.Context(), supervisor.Exec{ContainerID: "one", ExecID: "long", Process: execProcess(
			"while ! tail -n 1 /proc/$$/cgroup | { read l; case $l in */one) ;; *) false;; esac; }; do sleep 0.05; done")})
		if err != nil {
			return err
		}
		_, err = n.WaitExec(t.Context(), "one", "long")
		return err
	})
}
