// Package diagnosis turns what the recorder kept of a pod or container into
// what a person can use: its state, why it is so, and what to do about it. It
// is pure: it reads nothing but what it is given.
package diagnosis

import (
	"fmt"
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
	// Former counts containers of the same pod and name before this one.
	Former int
}

// Story is what is told of a Subject.
type Story struct {
	State, Cause string
	Hints        []string
}

// hint adds what can be done.
func (s *Story) hint(format string, args ...any) {
	s.Hints = append(s.Hints, fmt.Sprintf(format, args...))
}

// Container tells the story of a container.
func Container(c Subject) Story {
	var s Story
	switch c.State {
	case Making:
		s.State = "It is being made."
	case Created:
		s.State = "It was created " + c.ago(c.Created) + " and has not been started."
		s.Cause = "Nobody started it."
		if failed := c.failed("start container"); failed != nil {
			s.Cause = "It could not be started: " + failed.Error
		}
	case Running, Paused:
		c.running(&s)
	case Exited:
		s.State = "It " + c.ended() + ", " + c.ago(c.Finished) + "."
		c.exited(&s)
	case Gone:
		c.gone(&s)
	default:
		s.State = "Nobody knows: the supervisor, which runs it, does not answer."
		s.hint("Look at it with: nodectl info")
	}
	if c.Underway != "" {
		s.Cause = join(s.Cause, "Right now: "+c.Underway)
		s.hint("See what it waits for with: nodectl ops")
	}
	if c.Former > 0 {
		s.Cause = join(s.Cause, fmt.Sprintf("Before this one the pod had %s of the same name.", count(c.Former, "container")))
	}
	return s
}

// running tells of a container that runs.
func (c Subject) running(s *Story) {
	s.State = "It has been running since " + c.ago(c.Started) + "."
	s.Cause = "Nothing is wrong with it as far as the agent knows."
	if c.State == Paused {
		s.State = "It is paused: its processes are frozen."
		s.Cause = "It was paused"
		if e := c.last(func(e recorder.Entry) bool { return e.What == "Pause" && e.Error == "" }); e != nil {
			s.Cause += " " + c.ago(e.At) + by(e.By)
		}
		s.Cause += "."
		s.hint("Let it go on with: nodectl unpause")
	}
	c.pressed(s)
}

// pressed tells when limits make a container slow, or nearly kill it.
func (c Subject) pressed(s *Story) {
	u := c.Usage
	if u.OOMKills > 0 {
		s.Cause = fmt.Sprintf("The kernel killed %s in it because they used all the memory it may have (%s).", count(int(u.OOMKills), "process"), size(u.MemoryLimit))
		s.hint("Give it more memory, or make it use less.")
	} else if u.MemoryLimit > 0 && u.MemoryPeak >= u.MemoryLimit/10*9 {
		s.hint("At its peak it used %s of the %s of memory it may have; with more it is killed.", size(u.MemoryPeak), size(u.MemoryLimit))
	}
	if share := throttledShare(u); share >= throttledMuch {
		s.hint("It is slow because its CPU limit holds it back: in %d %% of all periods it was made to wait, %s in all. Raise the limit.",
			share, u.Throttled.Round(time.Millisecond))
	}
	if e := c.lastFailedProbe(); e != nil {
		s.hint("A command in it failed to run %s%s: %s", c.ago(e.At), by(e.By), e.Error)
	}
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
			s.Cause = "It could not be made: " + failed.Error
			createHints(s, failed.Error)
		}
		return
	}
	s.State = "It was removed " + c.ago(e.At) + by(e.By) + "."
	if exit := c.exit(); exit != nil {
		c.State, c.Finished, c.ExitCode, c.Reason, c.Message = Exited, exit.At, exit.Exit.Code, exit.Exit.Reason, exit.Error
		c.Started = exit.At.Add(-exit.Exit.Ran)
		s.State += " Before that it " + c.ended() + "."
		c.exited(s)
		return
	}
	s.Cause = "It was never started."
	if failed := c.failed("start container"); failed != nil {
		s.Cause = "It could not be started: " + failed.Error
		startHints(s, failed.Error)
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

func (c Subject) ago(t time.Time) string {
	if t.IsZero() {
		return "at an unknown time"
	}
	d := c.Now.Sub(t)
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
