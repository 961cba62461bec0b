package diagnosis

import (
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
		s.Cause = "It could not be started: " + c.Message
		startHints(s, c.Message)
	case c.Reason == reasonOOM:
		c.outOfMemory(s)
	case c.Reason == reasonLost:
		s.Cause = "It ended while no supervisor was there to see it, so nobody knows how. It is taken for a failure."
		s.hint("Find out why the supervisor ended: look at its log, and at the kernel's with: dmesg")
	case c.Reason == reasonUnknown:
		s.Cause = "The machine was started anew, and it did not survive that."
	case c.ExitCode == 0 && c.stopped() == nil:
		s.Cause = "Its process ended by itself and said that all is well."
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
	stop := c.stopped()
	signal := c.signal()
	switch {
	case stop != nil:
		s.Cause = "It was stopped: " + stop.What + " was sent to it" + by(stop.By) + "."
		if stop.What != "SIGKILL" && c.killedAfter(stop) {
			s.Cause += " It did not end of that within " + span(c.Finished.Sub(stop.At)) + ", and was killed."
			s.hint("Its process ignores %s, or takes long over it. Let it handle %s, give it another stop signal, or more time.", stop.What, stop.What)
		}
	case signal == "SIGKILL":
		s.Cause = "It was killed by SIGKILL, which the agent did not send: somebody on this machine did, or the kernel because the machine or the pod was out of memory."
		s.hint("See whether the kernel did with: dmesg | grep -i -e oom -e 'killed process'")
	case signal == "SIGSEGV" || signal == "SIGBUS" || signal == "SIGILL" || signal == "SIGFPE" || signal == "SIGABRT":
		s.Cause = "Its process crashed (" + signal + "): a bug in the program, or a library or processor it was not made for."
	case signal == "SIGSYS":
		s.Cause = "Its process made a system call that its seccomp profile forbids."
		s.hint("Run it with another profile, or see with --security-opt seccomp=unconfined whether that is it.")
	case signal != "":
		s.Cause = "It was ended by " + signal + ", which the agent did not send: a process in it did, or somebody on this machine."
	default:
		s.Cause = c.failedByItself(s)
	}
	c.pressed(s)
}

// killedAfter says whether SIGKILL followed.
func (c Subject) killedAfter(stop *recorder.Entry) bool {
	return c.last(func(e recorder.Entry) bool {
		return e.Kind == recorder.KindSignal && e.What == "SIGKILL" && e.At.After(stop.At)
	}) != nil
}

// failedByItself says what an exit code means.
func (c Subject) failedByItself(s *Story) string {
	const itself = "Its process ended by itself and said that something failed"
	switch c.ExitCode {
	case 126:
		s.hint("A shell in it found a program that cannot be run: it is no program, or lacks the x bit.")
	case 127:
		s.hint("A shell in it did not find a program: look at the command, and at PATH in the image.")
	case 137:
		return "A process in it was killed by SIGKILL, and it passed that on (exit code 137). The agent did not send it."
	case 139:
		return "A process in it crashed (SIGSEGV), and it passed that on (exit code 139)."
	}
	if e := c.exit(); e == nil || len(e.Exit.Log) == 0 {
		s.hint("It wrote nothing to its log. Run it by hand to see more: nodectl run -it --rm --entrypoint sh IMAGE")
		return itself + "."
	}
	return itself + "; what it wrote last should say what."
}

func (c Subject) outOfMemory(s *Story) {
	limit := c.Usage.MemoryLimit
	if e := c.exit(); e != nil && e.Exit.Usage.MemoryLimit > 0 {
		limit = e.Exit.Usage.MemoryLimit
	}
	switch {
	case limit > 0:
		s.Cause = "The kernel killed it because it used all of the memory it may have (" + size(limit) + ")."
	default:
		s.Cause = "The kernel killed it because memory ran out: that of its pod, or of the machine, since it has no limit of its own."
	}
	s.hint("Give it more memory (nodectl: -m; Kubernetes: resources.limits.memory), or make it use less.")
}

// startHints says what a failed start asks for.
func startHints(s *Story, text string) {
	switch lower := strings.ToLower(text); {
	case strings.Contains(lower, "executable file not found"), strings.Contains(lower, "no such executable"), strings.Contains(lower, "no such file or directory"):
		s.hint("The program to run is not in the image: look at the command and at PATH. A script needs the interpreter that its first line names.")
	case strings.Contains(lower, "exec format error"):
		s.hint("The program was made for another kind of machine, or is a script without a first line such as #!/bin/sh.")
	case strings.Contains(lower, "permission denied"):
		s.hint("The program may not be run: it lacks the x bit, or the user it runs as may not reach it.")
	case strings.Contains(lower, "supervisor"):
		s.hint("The supervisor does not answer: see nodectl info, and the agent's log.")
	}
}

// createHints says what a failed creation asks for.
func createHints(s *Story, text string) {
	switch lower := strings.ToLower(text); {
	case strings.Contains(lower, "no space left"):
		s.hint("The disk is full. See what takes the room with: nodectl system df; give some back with: nodectl system prune")
	case strings.Contains(lower, "image"):
		s.hint("Its image is missing or broken: pull it again.")
	case strings.Contains(lower, "unable to find user"), strings.Contains(lower, "no user"), strings.Contains(lower, "no group"):
		s.hint("The user or group it shall run as is not in the image's /etc/passwd or /etc/group.")
	}
}
