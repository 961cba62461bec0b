// Package diagnosis turns what the recorder kept of a pod or container into
// what a person can use: its state, why it is so, and what to do about it. It
// is pure: it reads nothing but what it is given.
package diagnosis

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/nodeagent/nodeagent/internal/recorder"
)

// States of a Subject.
const (
	Created  = "created"
	Running  = "running"
	Paused   = "paused"
	Exited   = "exited"
	Unknown  = "unknown"
	Ready    = "ready"
	Stopping = "stopping"
	NotReady = "notready"
	// Gone was removed, and Making is not listed yet.
	Gone   = "gone"
	Making = "making"
)

// Subject is what is known of a container, or of a pod.
type Subject struct {
	Now time.Time
	// State is one of the above.
	State string
	Names recorder.Names
	// Created, Started and Finished are zero where it did not happen.
	Created, Started, Finished time.Time
	// ExitCode, Reason and Message are as sandbox has them.
	ExitCode        int
	Reason, Message string
	// Usage is what a running container used so far.
	Usage recorder.Usage
	// Entries are the recorder's, the oldest first.
	Entries []recorder.Entry
	// Underway describes an operation on it that has not ended.
	Underway string
	// Former are the exit codes of the containers of the same pod and name
	// before this one, or of its own earlier runs, the oldest first; Failed
	// counts those that could not be made or started.
	Former []int
	Failed int
	// Output are the last lines it wrote; FullDisk is the folder of its log,
	// if there is no room for more.
	Output   []string
	FullDisk string
	// Restarting says that its restart policy is to start it again, GaveUp after
	// how many restarts it does so no more; zero where it is not that.
	Restarting bool
	GaveUp     int
	// Health is what its health check said; zero without one.
	Health Health
}

// Health is what the health check of a container that runs said.
type Health struct {
	Unhealthy bool
	// Streak is how often in a row it failed, Output what it wrote last.
	Streak int
	Output string
	// Command is what is run, as a shell takes it.
	Command string
}

// Story is what is told of a Subject.
type Story struct {
	State, Cause string
	Hints        []string
}

// hint adds what can be done.
func (s *Story) hint(format string, args ...any) {
	s.hintOnce(fmt.Sprintf(format, args...))
}

func (s *Story) hintOnce(hints ...string) {
	for _, hint := range hints {
		if !slices.Contains(s.Hints, hint) {
			s.Hints = append(s.Hints, hint)
		}
	}
}

// failed tells what could not be done, by its error.
func (s *Story) failed(lead, text, image string, tables ...[]failure) {
	cause, hints := explained(text, image, tables...)
	s.Cause = lead + cause
	s.hintOnce(hints...)
}

// Container tells the story of a container.
func Container(c Subject) Story {
	var s Story
	switch c.State {
	case Making:
		s.State = "It is being made."
	case Created:
		s.State = "It was created " + c.ago(c.Created) + " and has not been started."
		s.Cause = unstarted
		if failed := c.failed("start container"); failed != nil {
			s.failed(notStarted, failed.Error, c.Names.Image, startFailures, makeFailures)
		}
	case Running, Paused:
		c.running(&s)
	case Exited:
		s.State = "It " + c.ended() + ", " + c.ago(c.Finished) + "."
		c.exited(&s)
		if c.Restarting {
			s.State += " Its restart policy is to start it again."
			s.hint("Keep it from that with: nodectl update --restart no %s", c.name())
		}
		if c.GaveUp > 0 {
			s.State += " Its restart policy gave up after " + count(c.GaveUp, "restart") + "."
			s.hint("Once that is mended start it again, with as many tries, with: nodectl start %s", c.name())
		}
	case Gone:
		c.gone(&s)
	default:
		s.State = "Nobody knows: the supervisor, which runs it, does not answer."
		s.hint("See what is wrong with it, and what to do, with: nodectl doctor")
	}
	if c.Underway != "" {
		s.Cause = replaced(s.Cause, rightNow+c.Underway)
		if strings.Contains(c.Underway, "waits in the kernel") {
			s.hint("It ends when the disk or network file system that it waits for answers, or is taken away. See which with: findmnt -T PATH; umount -f gives up an NFS mount")
		}
		s.hint("See what it waits for with: nodectl ops")
	}
	c.again(&s)
	return s
}

// Beginnings of causes.
const (
	rightNow   = "Right now: "
	notStarted = "It could not be started: "
	notMade    = "It could not be made: "
)

// again tells of those before it.
func (c Subject) again(s *Story) {
	if n := len(c.Former); n > 0 {
		const most = 5
		var codes []string
		for _, code := range c.Former[max(0, n-most):] {
			codes = append(codes, fmt.Sprint(code))
		}
		text := fmt.Sprintf("It was started %s before", times(n))
		if n > most {
			text += ", and the last ones"
		} else {
			text += ", and"
		}
		s.Cause = join(s.Cause, text+" ended with exit code "+strings.Join(codes, ", ")+".")
	}
	if c.Failed > 0 {
		s.Cause = join(s.Cause, fmt.Sprintf("It was tried %s before, and failed too.", times(c.Failed)))
	}
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// running tells of a container that runs.
func (c Subject) running(s *Story) {
	s.State = "It has been running for " + strings.ToLower(units.HumanDuration(c.Now.Sub(c.Started))) + "."
	s.Cause = wellKnown
	if c.State == Paused {
		s.State = "It is paused: its processes are frozen."
		s.Cause = "It was paused"
		if e := c.last(func(e recorder.Entry) bool { return e.What == "Pause" && e.Error == "" }); e != nil {
			s.Cause += " " + c.ago(e.At) + by(e.By)
		}
		s.Cause += "."
		s.hint("Let it go on with: nodectl unpause %s", c.name())
	}
	if c.Health.Unhealthy {
		s.Cause = replaced(s.Cause, fmt.Sprintf("Its health check failed, %s in a row.", times(c.Health.Streak)))
		if said := strings.TrimSpace(c.Health.Output); said != "" {
			s.Cause = join(s.Cause, "The last time it said: "+quoted(said))
		}
		s.hint("Run the check by hand with: nodectl exec %s %s", c.name(), c.Health.Command)
		s.hint("Nothing starts it anew because of that; you can, with: nodectl restart %s", c.name())
	}
	c.pressed(s)
}

// name is what nodectl calls it.
func (c Subject) name() string {
	if c.Names.Owner == "cri" {
		return c.Names.Namespace + "/" + c.Names.Pod + "/" + c.Names.Container
	}
	return c.Names.Container
}

// pressed tells when limits make a container slow, or nearly kill it.
func (c Subject) pressed(s *Story) {
	u := c.used()
	if c.State != Exited && u.OOMKills > 0 {
		s.Cause = fmt.Sprintf("The kernel killed %s in it for want of memory: %s. It goes on without.", count(int(u.OOMKills), "process"), wanted(u))
		s.hint(moreMemory)
	} else if u.MemoryLimit > 0 && u.MemoryPeak >= u.MemoryLimit/10*9 {
		s.hint("At its peak it used %s of the %s of memory it may have; with more it is killed.", size(u.MemoryPeak), size(u.MemoryLimit))
	}
	if share := throttledShare(u); share >= throttledMuch {
		s.Cause = replaced(s.Cause, fmt.Sprintf("It is slow because its CPU limit holds it back: in %d %% of all periods it was made to wait, %s in all.",
			share, u.Throttled.Round(time.Millisecond)))
		s.hint("Raise the limit (nodectl: --cpus; Kubernetes: resources.limits.cpu). See what it uses with: nodectl stats")
	}
	c.refused(s, u)
	if c.FullDisk != "" {
		s.Cause = replaced(s.Cause, "What it writes to its log is lost: the disk of "+c.FullDisk+" is full.")
		s.hint("See how full with: df -h %s; and what takes the room with: du -x %s | sort -n | tail", c.FullDisk, c.FullDisk)
	}
	if e := c.lastFailedProbe(); e != nil {
		s.hint("A command that was run in it%s failed %s: %q: %s", by(e.By), c.ago(e.At), e.Text, e.Error)
	}
}

// unstarted is the cause of what waits to be started.
const unstarted = "Nobody started it."

// wellKnown is the cause of what runs and has no trouble.
const wellKnown = "Nothing is wrong with it as far as the agent knows."

// replaced is a cause in place of none, or behind another.
func replaced(cause, by string) string {
	if cause == wellKnown {
		return by
	}
	return join(cause, by)
}

// refused tells of processes that could not be made.
func (c Subject) refused(s *Story, u recorder.Usage) {
	if u.PIDsRefused == 0 || u.PIDsLimit == 0 {
		return
	}
	s.Cause = replaced(s.Cause, fmt.Sprintf("It may have %d processes and threads, and was refused more %s.", u.PIDsLimit, times(int(u.PIDsRefused))))
	s.hint("Raise the limit (nodectl: --pids-limit; kubelet: podPidsLimit), or find out what makes so many with: nodectl top")
}

const moreMemory = "Give it more memory (nodectl: -m; Kubernetes: resources.limits.memory), or make it use less."

// nearly is how much of a limit was used, in tenths, when it was what memory
// ran out of.
const nearly = 9

// wanted says whose memory ran out.
func wanted(u recorder.Usage) string {
	switch {
	case u.MemoryLimit == 0:
		return "it has no limit of its own, so that of its pod, or of the machine, ran out"
	case u.MemoryPeak > 0 && u.MemoryPeak < u.MemoryLimit/10*nearly:
		return fmt.Sprintf("it used %s of the %s it may have at most, so that of its pod, or of the machine, ran out", size(u.MemoryPeak), size(u.MemoryLimit))
	}
	return "it used all of the memory it may have (" + size(u.MemoryLimit) + ")"
}

// throttledMuch is the percentage of periods from which on it is told.
const throttledMuch = 25

func throttledShare(u recorder.Usage) int {
	if u.Periods == 0 {
		return 0
	}
	return int(u.ThrottledPeriods * 100 / u.Periods)
}

func (c Subject) lastFailedProbe() *recorder.Entry {
	return c.last(func(e recorder.Entry) bool {
		return e.What == "ExecSync" && e.Error != "" && c.Now.Sub(e.At) < 10*time.Minute
	})
}

// ended says how it ended, without why.
func (c Subject) ended() string {
	if c.Started.IsZero() {
		return "could not be started"
	}
	text := fmt.Sprintf("ended with exit code %d", c.ExitCode)
	if name := c.signal(); name != "" {
		text += " (" + name + ")"
	}
	return text + " after running for " + span(c.Finished.Sub(c.Started))
}

// exit is what was recorded of its end; nil when nothing was.
func (c Subject) exit() *recorder.Entry {
	return c.last(func(e recorder.Entry) bool { return e.Kind == recorder.KindExit })
}

// signal is the signal that ended it, or the one that its code means.
func (c Subject) signal() string {
	if e := c.exit(); e != nil && e.Exit.Signal != "" {
		return e.Exit.Signal
	}
	return ""
}

// gone tells of a container that was removed.
func (c Subject) gone(s *Story) {
	s.State = "It is not there any more."
	e := c.last(func(e recorder.Entry) bool { return e.Kind == recorder.KindGone })
	if e == nil {
		s.Cause = "Its making failed, or the agent was killed while it was removed."
		if failed := c.failed("create container"); failed != nil {
			s.State = "It is not there: it was never made. That was last tried " + c.ago(failed.At) + "."
			s.failed(notMade, failed.Error, c.Names.Image, makeFailures)
		}
		return
	}
	s.State = "It was removed " + c.ago(e.At) + by(e.By) + "."
	if exit := c.exit(); exit != nil {
		c.State, c.Finished, c.ExitCode, c.Reason, c.Message = Exited, exit.At, exit.Exit.Code, exit.Exit.Reason, exit.Error
		if c.Started = exit.At.Add(-exit.Exit.Ran); exit.Exit.Ran == 0 {
			c.Started = time.Time{}
		}
		s.State += " Before that it " + c.ended() + "."
		c.exited(s)
		return
	}
	s.Cause = "It was never started."
	if failed := c.failed("start container"); failed != nil {
		s.failed(notStarted, failed.Error, c.Names.Image, startFailures, makeFailures)
	}
}

// last finds the latest entry that matches; nil without one.
func (c Subject) last(match func(recorder.Entry) bool) *recorder.Entry {
	for i := len(c.Entries) - 1; i >= 0; i-- {
		if match(c.Entries[i]) {
			return &c.Entries[i]
		}
	}
	return nil
}

// failed is the latest operation of a kind, if it failed.
func (c Subject) failed(verb string) *recorder.Entry {
	e := c.last(func(e recorder.Entry) bool { return e.Kind == recorder.KindOperation && e.What == verb })
	if e == nil || e.Error == "" {
		return nil
	}
	return e
}

func (c Subject) ago(t time.Time) string { return Ago(c.Now, t) }

// Ago says in words how long before now a time was.
func Ago(now, t time.Time) string {
	if t.IsZero() {
		return "at an unknown time"
	}
	d := now.Sub(t)
	if d < time.Second {
		return "just now"
	}
	return strings.ToLower(units.HumanDuration(d)) + " ago"
}

// span is a duration for people.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func size(n uint64) string { return units.BytesSize(float64(n)) }

func by(who string) string {
	if who == "" {
		return " by nodeagent itself"
	}
	return " by " + who
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	if strings.Contains(a, " ") && !strings.HasSuffix(a, ".") && !strings.HasSuffix(a, ":") {
		a += "."
	}
	return a + " " + b
}

func count(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "s"):
		return fmt.Sprintf("%d %ses", n, noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
