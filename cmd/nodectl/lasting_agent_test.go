package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"golang.org/x/sys/unix"
)

// TestWhatOutlivesTheAgent tries what a person may rely on when the agent is
// killed and started again.
func TestWhatOutlivesTheAgent(t *testing.T) {
	p := newPerson(t)
	for _, part := range []struct {
		name string
		test func(*testing.T)
	}{
		{"health", p.healthOutlives}, {"events", p.eventsOutlive}, {"ends", p.endsMeanwhile}, {"anonymous volumes", p.volumesKilledBetween},
	} {
		t.Run(part.name, func(t *testing.T) {
			defer p.removeAll(t)
			part.test(t)
		})
	}
}

func (p *person) healthOutlives(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--name", "ill", "--health-cmd", "echo no; exit 1", "--health-interval", "100ms", "--health-retries", "2", "busybox", "sleep", "1000")
	p.ctl("run", "-d", "--name", "well", "--health-cmd", "true", "--health-interval", "1h", "--health-start-period", "1h", "--health-start-interval", "50ms",
		"busybox", "sleep", "1000")
	const health = "{{.State.Health.Status}}"
	p.eventually("unhealthy", "inspect", "-f", health, "ill")
	p.eventually("healthy", "inspect", "-f", health, "well")
	var before, after int
	const streak = "{{.State.Health.FailingStreak}}"
	_, _ = fmt.Sscan(p.ctl("inspect", "-f", streak, "ill"), &before)
	p.Kill9()
	p.Start()
	// That of the second is not asked again for an hour.
	p.eventually("healthy 0 1", "inspect", "-f", health+" "+streak+" {{len .State.Health.Log}}", "well")
	p.eventually("unhealthy", "inspect", "-f", health, "ill")
	_, _ = fmt.Sscan(p.ctl("inspect", "-f", streak, "ill"), &after)
	if after < before {
		t.Errorf("it failed %d times, then %d", before, after)
	}
	if out := p.ctl("events", "--since", "1h", "--until", "0s", "-f", "container=ill", "-f", "event=health_status", "--format", "{{.Action}}"); out != "health_status: unhealthy" {
		t.Errorf("events: %q", out)
	}
	p.ctl("rm", "-f", "ill", "well")
}

// told gives the events of a container in a word each.
func (p *person) told(name string) string {
	p.t.Helper()
	return strings.Join(strings.Fields(p.ctl("events", "--since", "1h", "--until", "0s", "-f", "container="+name, "--format", "{{.Action}}")), " ")
}

func (p *person) eventsOutlive(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--name", "ends", "busybox", "sh", "-c", "trap 'exit 3' TERM; while true; do sleep 0.05; done")
	p.ctl("run", "-d", "--name", "stays", "busybox", "sleep", "1000")
	pids := p.pids("ends")
	p.Kill9()
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	p.Start()
	p.eventually("exited 137", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "ends")
	testenv.Eventually(t, patience, "its end is told of", func() error {
		if out := p.told("ends"); out != "create start die" {
			return errors.New(out)
		}
		return nil
	})
	p.Kill9()
	p.Start()
	if out := p.told("ends"); out != "create start die" {
		t.Errorf("later: %s", out)
	}
	if out := p.told("stays"); out != "create start" {
		t.Errorf("the other: %s", out)
	}
	p.ctl("rm", "-f", "ends", "stays")
}

// pids are the process IDs of containers, as far as they run.
func (p *person) pids(names ...string) (out []int) {
	p.t.Helper()
	for _, name := range names {
		// Zero would be everybody in our process group.
		if pid, err := strconv.Atoi(p.ctl("inspect", "-f", "{{.State.Pid}}", name)); err == nil && pid > 1 {
			out = append(out, pid)
		}
	}
	return out
}

// endsMeanwhile: what is to be done for containers that end while no agent runs is
// done by the next one.
func (p *person) endsMeanwhile(t *testing.T) {
	p.t = t
	const script = "trap 'exit 3' TERM; while true; do sleep 0.05; done"
	for name, args := range map[string][]string{
		"goes": {"--rm", "-v", "/anonymous"}, "always": {"--restart", "always"}, "unless": {"--restart", "unless-stopped"},
		"fails": {"--restart", "on-failure:1"}, "stopped": {"--restart", "unless-stopped"}, "plain": nil,
	} {
		p.ctl(append(append([]string{"run", "-d", "--name", name}, args...), "busybox", "sh", "-c", script)...)
	}
	p.ctl("stop", "stopped")
	for round := range 2 {
		pids := p.pids(strings.Fields(p.ctl("ps", "--format", "{{.Names}}"))...)
		p.Kill9()
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		p.Start()
		p.eventually("running", "inspect", "-f", "{{.State.Status}}", "always")
		p.eventually("running", "inspect", "-f", "{{.State.Status}}", "unless")
		if round == 0 {
			p.eventually("running", "inspect", "-f", "{{.State.Status}}", "fails")
		}
	}
	// It was started again once, which is all it may.
	p.eventually("exited 1", "inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "fails")
	p.want("running 2", "inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "always")
	p.want("exited 0", "inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "stopped")
	p.want("exited 0", "inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "plain")
	p.want("", "volume", "ls", "-q")
	p.ctl("rm", "-f", "always", "unless", "fails", "stopped", "plain")
}

// volumesKilledBetween: an anonymous volume goes with its container, whenever the
// agent is killed.
func (p *person) volumesKilledBetween(t *testing.T) {
	p.t = t
	p.ctl("volume", "create", "named")
	create := []string{"create", "--name", "c", "-v", "/anonymous", "-v", "named:/named", "busybox", "true"}
	remove := []string{"rm", "-v", "c"}
	run := []string{"run", "--rm", "-v", "/anonymous", "busybox", "true"}
	for _, kill := range []struct {
		point string
		args  []string
	}{
		{"nodectl.create.hold volumes.after", create}, {"nodectl.create.run pod.after", create},
		{"nodectl.create.create container.after", create}, {"nodectl.create.fill volumes.after", create},
		{"nodectl.remove.rest", remove}, {"nodectl.remove.volumes", remove}, {"nodectl.remove.volumes", run},
	} {
		if kill.args[0] == "rm" {
			p.ctl(create...)
		}
		p.Stop()
		t.Setenv("NODEAGENT_FAILPOINTS", kill.point+"=exit")
		p.Start()
		t.Setenv("NODEAGENT_FAILPOINTS", "")
		_ = p.command(kill.args...).Run() // one that removes itself may have told its end before
		testenv.Eventually(t, patience, kill.point+" kills the agent", func() error {
			if !p.Exited() {
				return errNotYet
			}
			return nil
		})
		p.Stop()
		p.Start()
		p.eventually("named", "volume", "ls", "-q")
		p.eventually("", "ps", "-aq")
	}
	p.want("named", "volume", "rm", "named")
}
