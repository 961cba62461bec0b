package diagnosis

import (
	"fmt"
	"strings"

	"github.com/nodeagent/nodeagent/internal/recorder"
)

// Pod tells the story of a pod; parts are the stories of its containers, by
// name, in the order they were made.
func Pod(p Subject, names []string, parts []Story, states []string) Story {
	var s Story
	switch p.State {
	case Making:
		s.State = "It is being made."
	case Ready:
		s.State = "It is ready, made " + p.ago(p.Created) + "."
		if len(parts) > 0 || p.Underway == "" {
			s.Cause = podCause(names, parts, states)
		}
	case Stopping:
		s.State = "It is being stopped, and that is not finished."
		s.Cause = "What it has is being given back."
		if failed := p.failed("stop pod"); failed != nil {
			s.Cause = "Its stop failed, and is tried again: " + failed.Error
			podHints(&s, failed.Error)
		}
	case NotReady:
		s.State = "It is stopped."
		s.Cause = p.stopCause()
	case Gone:
		p.podGone(&s)
	}
	if p.Underway != "" {
		s.Cause = join(s.Cause, "Right now: "+p.Underway)
		s.hint("See what it waits for with: nodectl ops")
	}
	return s
}

// podCause sums the containers up.
func podCause(names []string, parts []Story, states []string) string {
	if len(parts) == 0 {
		return "It has no containers: kubelet has not made any, or is pulling their images."
	}
	var bad []string
	for i, part := range parts {
		if states[i] != Running {
			bad = append(bad, names[i]+": "+part.Cause)
		}
	}
	if len(bad) == 0 {
		return fmt.Sprintf("All is well: %s running.", count(len(parts), "container"))
	}
	return strings.Join(bad, " ")
}

func (p Subject) stopCause() string {
	e := p.last(func(e recorder.Entry) bool {
		return e.Kind == recorder.KindOperation && e.What == "stop pod" && e.Error == ""
	})
	if e == nil {
		return "Nobody recorded who stopped it."
	}
	text := "It was stopped " + p.ago(e.At) + by(e.By) + "."
	if p.last(func(e recorder.Entry) bool { return e.Kind == recorder.KindCall && e.What == "StopPodSandbox" }) == nil && e.By == "" {
		text += " Its namespaces or the machine went away under it."
	}
	return text
}

func (p Subject) podGone(s *Story) {
	if e := p.last(func(e recorder.Entry) bool { return e.Kind == recorder.KindGone && e.Container == "" }); e != nil {
		s.State = "It was removed " + p.ago(e.At) + by(e.By) + "."
		s.Cause = p.stopCause()
		return
	}
	s.State = "It is not there: it was never ready."
	if failed := p.failed("run pod"); failed != nil {
		s.Cause = "It could not be made: " + failed.Error
		podHints(s, failed.Error)
		return
	}
	s.Cause = "The agent was stopped or killed while it was made."
}

// podHints says what a pod that cannot be made or stopped asks for.
func podHints(s *Story, text string) {
	switch lower := strings.ToLower(text); {
	case strings.Contains(lower, "network"):
		s.hint("The network is at fault. See which configuration is used, and what is wrong with it, with: nodectl doctor")
	case strings.Contains(lower, "cgroup"):
		s.hint("Its cgroup could not be made or removed: something else may use it, or the cgroup driver is not kubelet's.")
	case strings.Contains(lower, "no space left"):
		s.hint("The disk is full. See what takes the room with: nodectl system df")
	case strings.Contains(lower, "sysctl"):
		s.hint("The kernel refuses one of the pod's sysctls.")
	}
}
