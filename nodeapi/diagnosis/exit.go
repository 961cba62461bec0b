package diagnosis

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/internal/recorder"
)

// Reasons of an exit, as sandbox words them.
const (
	reasonOOM     = "OOMKilled"
	reasonStart   = "StartError"
	reasonLost    = "SupervisorLost"
	reasonUnknown = "Unknown"
)

// signalMemory is how long after a signal an end is put down to it.
const signalMemory = 10 * time.Minute

// exited says why a container ended.
func (c Subject) exited(s *Story) {
	switch {
	case c.Reason == reasonStart:
		s.failed(notStarted, c.Message, c.Names.Image, startFailures, makeFailures)
	case c.Reason == reasonOOM:
		c.outOfMemory(s)
	case c.Reason == reasonLost:
		s.Cause = "It ended while no supervisor was there to see it, so nobody knows how. It is taken for a failure."
		s.hint("Find out why the supervisor ended: look at its log, and at the kernel's with: dmesg")
	case c.Reason == reasonUnknown:
		s.Cause = "The machine was started anew, and it did not survive that."
	case c.ExitCode == 0 && c.stopped() == nil:
		s.Cause = "Its process ended by itself and said that all is well (exit code 0)."
	default:
		c.failedOrStopped(s)
	}
}

// stopped is the first signal of those that ended it, if somebody sent one.
func (c Subject) stopped() *recorder.Entry {
	var first *recorder.Entry
	for i, e := range c.Entries {
		switch {
		case e.Kind == recorder.KindOperation && e.What == "start container":
			first = nil // what was sent to an earlier run does not count
		case e.Kind != recorder.KindSignal || e.Error != "" || !deadly(e.What) || e.At.After(c.Finished.Add(time.Second)):
		case c.Finished.Sub(e.At) < signalMemory && first == nil:
			first = &c.Entries[i]
		}
	}
	return first
}

// deadly says whether a signal is one that usually ends a process.
func deadly(name string) bool {
	switch name {
	case "SIGHUP", "SIGWINCH", "SIGCHLD", "SIGCONT", "SIGUSR1", "SIGUSR2", "SIGSTOP", "SIGTSTP":
		return false
	}
	return true
}

func (c Subject) failedOrStopped(s *Story) {
	switch stop := c.stopped(); {
	case stop != nil:
		c.wasStopped(s, stop)
	case c.signal() != "":
		c.signalled(s)
	default:
		s.Cause = c.failedByItself(s)
	}
	c.pressed(s)
}

// wasStopped tells of one that was told to end.
func (c Subject) wasStopped(s *Story, stop *recorder.Entry) {
	s.Cause = "It was stopped: " + stop.What + " was sent to it" + by(stop.By) + "."
	if stop.What != "SIGKILL" && c.killedAfter(stop) {
		s.Cause += " It did not end of that within " + span(c.Finished.Sub(stop.At)) + ", and was killed."
		s.hint("Its process ignores %s, or takes long over it. Let it handle %s, give it another stop signal, or more time.", stop.What, stop.What)
	}
	if probe := c.failedProbe(stop); probe != nil {
		s.Cause += fmt.Sprintf(" Before that a command that %s ran in it failed (%q: %s): its liveness or startup probe, it seems.", probe.By, probe.Text, probe.Error)
	}
	if strings.HasPrefix(stop.By, "kubelet") {
		s.hint("kubelet stops a container when its pod is deleted or evicted, or its liveness or startup probe fails. See which it was with: kubectl describe pod -n %s %s", c.Names.Namespace, c.Names.Pod)
	}
}

// probeMemory is how long before a stop a failed command may be its reason:
// probes that fail are noted once in a minute.
const probeMemory = 90 * time.Second

// failedProbe is a command that kubelet ran in it in vain before it stopped it.
func (c Subject) failedProbe(stop *recorder.Entry) *recorder.Entry {
	if !strings.HasPrefix(stop.By, "kubelet") {
		return nil
	}
	return c.last(func(e recorder.Entry) bool {
		return e.What == "ExecSync" && e.Error != "" && e.By == stop.By && e.At.Before(stop.At) && stop.At.Sub(e.At) < probeMemory
	})
}

// used is what it used until it ended.
func (c Subject) used() recorder.Usage {
	if e := c.exit(); e != nil && e.Exit.Usage != (recorder.Usage{}) {
		return e.Exit.Usage
	}
	return c.Usage
}

// signalled tells of one that ended by a signal that the agent did not send.
func (c Subject) signalled(s *Story) {
	switch name := c.signal(); name {
	case "SIGKILL":
		c.killed(s)
	case "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT":
		s.Cause = "Its process crashed (" + name + "): a bug in the program, or a library or processor it was not made for."
		s.hint("See what the kernel says of it with: dmesg | tail")
	case "SIGSYS":
		s.Cause = "Its process made a system call that its seccomp profile forbids."
		s.hint("See which with: dmesg | grep type=1326; try without the profile: nodectl run --security-opt seccomp=unconfined %s", c.image())
	default:
		s.Cause = "It was ended by " + name + ", which the agent did not send: a process in it did, or somebody on this machine."
	}
}

// killed tells of SIGKILL that the agent did not send. The kernel counts whom
// its OOM killer kills, so where that can be read it is known not to be the one.
func (c Subject) killed(s *Story) {
	const unsent = "It was killed by SIGKILL, which the agent did not send"
	if c.used().MemoryPeak == 0 {
		s.Cause = unsent + ": somebody on this machine did, or the kernel because the machine or the pod was out of memory."
		s.hint("See whether the kernel did with: dmesg | grep -i -e oom -e 'killed process'")
		return
	}
	s.Cause = unsent + ", and neither did the kernel for want of memory, which it would have counted: somebody on this machine did, or a process in the pod."
	s.hint("Nobody can tell afterwards who it was. Look at who was logged in (last) and at what kills by itself (systemd-oomd, earlyoom); for the next time: auditctl -a always,exit -F arch=b64 -S kill -F a1=9, and read it with: ausearch -sc kill")
}

// killedAfter says whether SIGKILL followed.
func (c Subject) killedAfter(stop *recorder.Entry) bool {
	return c.last(func(e recorder.Entry) bool {
		return e.Kind == recorder.KindSignal && e.What == "SIGKILL" && e.At.After(stop.At)
	}) != nil
}

// failedByItself says what an exit code means.
func (c Subject) failedByItself(s *Story) string {
	if text := c.notExecuted(s); text != "" {
		return text
	}
	c.outputHints(s)
	const itself = "Its process ended by itself and said that something failed"
	switch c.ExitCode {
	case 126:
		s.hint("A shell in it found a program that cannot be run: it is no program, or lacks the x bit.")
	case 127:
		s.hint("A shell in it did not find a program: look at the command, and at PATH in the image.")
	}
	if text := passedOn(c.ExitCode); text != "" {
		return text
	}
	if len(c.Output) == 0 {
		s.hint("It wrote nothing to its log. Run it by hand to see more: nodectl run -it --rm --entrypoint sh %s", c.image())
		return itself + "."
	}
	return itself + "; what it wrote last should say what: " + quoted(c.Output[len(c.Output)-1])
}

// passedOn says what an exit code of more than 128 means to programs that
// follow the shell's custom; "" for one without that meaning.
func passedOn(code int) string {
	const custom = 128
	name := map[int]string{1: "SIGHUP", 2: "SIGINT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM", 31: "SIGSYS"}[code-custom]
	switch name {
	case "":
		return ""
	case "SIGKILL":
		return "A process in it was killed by SIGKILL, and it passed that on (exit code 137). The agent did not send it."
	case "SIGHUP", "SIGINT", "SIGTERM":
		return "Its process ended by itself with the exit code of one that " + name + " made end. The agent did not send that: somebody on this machine did, or a process in it."
	}
	return "A process in it crashed (" + name + "), and it passed that on (exit code " + strconv.Itoa(code) + ")."
}

// quoted is a line of output, at most as long as a person reads in passing.
func quoted(line string) string {
	const most = 200
	line = strings.TrimSpace(line)
	if runes := []rune(line); len(runes) > most {
		line = string(runes[:most]) + "…"
	}
	return strconv.Quote(line) + "."
}

// outOfMemory tells of one of which the kernel killed a process. The first one
// may have gone on, and ended later by itself.
func (c Subject) outOfMemory(s *Story) {
	s.hint(moreMemory)
	if c.signal() == "SIGKILL" {
		s.Cause = "The kernel killed it for want of memory: " + wanted(c.used()) + "."
		return
	}
	s.Cause = "The kernel killed a process in it for want of memory: " + wanted(c.used()) + fmt.Sprintf(". Its first process then ended by itself, with exit code %d.", c.ExitCode)
}
