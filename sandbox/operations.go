package sandbox

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/internal/blocked"
)

// operationLabel marks the goroutines of an operation, with its number.
const operationLabel = "operation"

// stageBegin is the stage of an operation that has done no step yet.
const stageBegin = "begin"

// Operation is a piece of work under way.
type Operation struct {
	// Verb is what is done, such as "stop pod"; What names the object too.
	Verb, What string
	// PodID and ContainerID say what with; empty where it is not known yet.
	PodID, ContainerID string
	// Stage is the step it is at since Since; it began at Began.
	Stage        string
	Since, Began time.Time
	// By says who asked for it; "" is the agent.
	By string
	// Killed says of a stop that SIGKILL was sent.
	Killed bool
	// Waits are the functions its goroutines are in, and Threads what the
	// agent's and the supervisor's threads wait for that wait longest.
	Waits   []string
	Threads []blocked.Thread
}

// Operations lists what is under way, the oldest first. With blocked set it
// says what they wait for too, which costs milliseconds.
func (m *Manager) Operations(inWhat bool) []Operation {
	m.opsMu.Lock()
	var ops []*operation
	for _, op := range m.ops {
		ops = append(ops, op)
	}
	m.opsMu.Unlock()
	slices.SortFunc(ops, func(a, b *operation) int { return cmp.Compare(a.number, b.number) })
	list := make([]Operation, 0, len(ops))
	for _, op := range ops {
		list = append(list, op.state())
	}
	if inWhat && len(ops) > 0 {
		waits := blocked.Goroutines(operationLabel)
		threads := blocked.Threads(os.Getpid())
		for i, op := range ops {
			list[i].Waits = waits[strconv.FormatUint(op.number, 10)]
			if waitsInKernel(list[i].Waits) {
				list[i].Threads = threads
			}
		}
	}
	return append(list, m.stops(inWhat)...)
}

// waitsInKernel tells whether one of the functions is a system call's.
func waitsInKernel(waits []string) bool {
	return slices.ContainsFunc(waits, func(w string) bool { return strings.HasPrefix(w, blocked.InKernel) })
}

// state is a copy of what is known.
func (o *operation) state() Operation {
	o.mu.Lock()
	defer o.mu.Unlock()
	return Operation{
		Verb: o.verb, What: o.what, PodID: o.pod, ContainerID: o.container,
		Stage: o.stage, Since: o.since, Began: o.began, By: o.by,
	}
}

// blockedIn says what an operation waits for, in words.
func (o Operation) blockedIn() string { return cmp.Or(o.BlockedIn(), "nothing that shows") }

// BlockedIn says what an operation waits for; "" where nothing shows, or when
// it was not looked for.
func (o Operation) BlockedIn() string {
	var parts []string
	parts = append(parts, o.Waits...)
	for _, t := range o.Threads {
		parts = append(parts, t.String())
	}
	return strings.Join(parts, "; ")
}

// watchOperation logs an operation that takes long, again and again at growing
// distances, until the timer it returns is stopped.
func (m *Manager) watchOperation(op *operation) *time.Timer {
	pause := m.cfg.SlowAfter
	var timer *time.Timer
	assigned := make(chan struct{})
	timer = time.AfterFunc(pause, func() {
		<-assigned
		m.spawn(func() { m.reportSlow(op) })
		pause *= 2
		select {
		case <-op.done:
		default:
			timer.Reset(pause)
		}
	})
	close(assigned)
	return timer
}

// reportSlow says where an operation is that should have ended.
func (m *Manager) reportSlow(op *operation) {
	for _, state := range m.Operations(true) {
		if state.What != op.what || !state.Began.Equal(op.began) {
			continue
		}
		if !m.noteSlow(op, state) {
			continue
		}
		m.log.WithField("blocked", state.blockedIn()).Warn(fmt.Sprintf("%s: still at stage %q for %s, %s in all",
			op.what, state.Stage, time.Since(state.Since).Round(time.Second), time.Since(op.began).Round(time.Second)))
	}
}
