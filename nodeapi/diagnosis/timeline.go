package diagnosis

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/internal/recorder"
)

// Moment is one line of a timeline.
type Moment struct {
	At    time.Time
	Took  time.Duration
	Text  string
	Error string
	// Container is the ID of the container it is about; empty for the pod's.
	Container string
}

// operations are the calls that an operation tells of too, by its verb.
var operations = map[string][]string{
	"run pod": {"RunPodSandbox"}, "stop pod": {"StopPodSandbox"}, "remove pod": {"RemovePodSandbox"},
	"create container": {"CreateContainer", "Create"}, "start container": {"StartContainer", "Start", "Attach"},
	"remove container": {"RemoveContainer", "Remove"},
}

// Timeline turns entries into lines. A call that an entry of its operation
// tells of in more detail is left out.
func Timeline(entries []recorder.Entry) []Moment {
	told := map[string]bool{}
	for _, e := range entries {
		if e.Kind == recorder.KindOperation {
			for _, method := range operations[e.What] {
				told[method+" "+e.By+" "+e.Container] = true
				told[method+" "+e.By+" "] = true
				told[method+" "+e.By+" failed: "+e.Error] = e.Error != ""
			}
		}
	}
	var all []Moment
	// Whether the agent said that it stops; whoever made the pod was there.
	ended := len(entries) == 0 || entries[0].Kind == recorder.KindAgent
	for _, e := range ordered(entries) {
		switch {
		case e.Kind == recorder.KindCall && covered(told, e):
			continue
		case e.Kind == recorder.KindAgent:
			if strings.HasSuffix(e.Text, agentStarted) && !ended {
				e.Text += "; the one before it was killed, or crashed"
			}
			ended = strings.HasSuffix(e.Text, agentStopped)
		}
		if text := sentence(e); text != "" {
			all = append(all, Moment{At: e.At, Took: e.Took, Text: text, Error: e.Error, Container: e.Container})
		}
	}
	return all
}

// What the agent says when it starts and when it stops ends in these.
const (
	agentStarted = "was started"
	agentStopped = "was stopped"
)

// covered says whether an entry of its operation tells of a call too. One that
// was refused before an operation began is told of by nothing else.
func covered(told map[string]bool, e recorder.Entry) bool {
	if e.Error == "" {
		return told[e.What+" "+e.By+" "+e.Container]
	}
	for key := range told {
		if failed, ok := strings.CutPrefix(key, e.What+" "+e.By+" failed: "); ok && failed != "" && strings.Contains(e.Error, failed) {
			return true
		}
	}
	return strings.Contains(e.Error, stillGoing)
}

// stillGoing is in the error of a caller that did not wait for its operation.
const stillGoing = "still at stage"

// ordered are entries by their time: what took long is noted at its end.
func ordered(entries []recorder.Entry) []recorder.Entry {
	sorted := slices.Clone(entries)
	slices.SortStableFunc(sorted, func(a, b recorder.Entry) int { return a.At.Compare(b.At) })
	return sorted
}

// sentence is an entry in words; "" for one that says nothing by itself.
func sentence(e recorder.Entry) string {
	switch e.Kind {
	case recorder.KindOperation:
		text := e.What + asked(e.By)
		if parts := steps(e.Steps); parts != "" {
			text += ": " + parts
		}
		if parts := steps(e.Within); parts != "" {
			text += " (of that: " + parts + ")"
		}
		return text
	case recorder.KindSlow:
		return e.What + " takes long: " + e.Text
	case recorder.KindCall:
		return "call " + strings.TrimSpace(e.What+" "+e.Text) + asked(e.By)
	case recorder.KindSignal:
		if e.Error != "" {
			return e.What + " could not be sent" + asked(e.By)
		}
		return e.What + " sent" + by(e.By)
	case recorder.KindOOM:
		if e.Count > 1 {
			return fmt.Sprintf("the kernel's OOM killer killed %d processes in it", e.Count)
		}
		return "the kernel's OOM killer killed a process in it"
	case recorder.KindExit:
		return ending(e.Exit)
	case recorder.KindGone:
		return "removed" + by(e.By)
	case recorder.KindAgent:
		return e.Text
	}
	return ""
}

func asked(who string) string {
	if who == "" {
		return ""
	}
	return ", asked by " + who
}

// steps lists those steps that took any time worth telling.
func steps(all []recorder.Step) string {
	var parts []string
	for _, s := range all {
		if s.Name != "" && s.Took >= 100*time.Microsecond {
			parts = append(parts, s.Name+" "+short(s.Took))
		}
	}
	return strings.Join(parts, ", ")
}

// short is a duration with two or three digits.
func short(d time.Duration) string {
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// ending is an exit in words.
func ending(x *recorder.Exit) string {
	if x == nil {
		return "ended"
	}
	text := fmt.Sprintf("ended with exit code %d", x.Code)
	if x.Signal != "" {
		text += " (" + x.Signal + ")"
	}
	if x.Ran > 0 {
		text += " after " + span(x.Ran)
	}
	if x.OOMKilled {
		text += ", killed for want of memory"
	}
	if u := Usage(x.Usage); u != "" {
		text += "; " + u
	}
	return text
}

// Usage is what a container used, in words; "" when that is not known.
func Usage(u recorder.Usage) string {
	var parts []string
	if u.MemoryPeak > 0 {
		text := "memory peak " + size(u.MemoryPeak)
		if u.MemoryLimit > 0 {
			text += " of " + size(u.MemoryLimit)
		}
		parts = append(parts, text)
	}
	if u.CPU > 0 {
		parts = append(parts, "CPU "+span(u.CPU))
	}
	if share := throttledShare(u); share > 0 {
		parts = append(parts, fmt.Sprintf("throttled in %d %% of periods, %s", share, span(u.Throttled)))
	}
	return strings.Join(parts, ", ")
}
