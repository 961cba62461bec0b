package diagnosis

import (
	"fmt"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/internal/recorder"
)

// Part is a container of a pod.
type Part struct {
	ID, Name string
	// State is one of those of a Subject, and Exit the code it ended with.
	State string
	Exit  int
	Story Story
}

// trouble says whether somebody should look at it: one that ended and said
// that all is well may just be done.
func (p Part) trouble() bool {
	switch p.State {
	case Running, Making, Created:
		return p.Story.Cause != wellKnown && p.Story.Cause != unstarted && p.State != Making
	case Exited:
		return p.Exit != 0
	}
	return true
}

// Pod tells the story of a pod; parts are its containers, in the order they
// were made.
func Pod(p Subject, parts []Part) Story {
	var s Story
	switch p.State {
	case Making:
		s.State = "It is being made."
	case Ready:
		s.State = "It is ready, made " + p.ago(p.Created) + "."
		p.podReady(&s, parts)
	case Stopping:
		s.State = "It is being stopped, and that is not finished."
		s.Cause = "What it has is being given back."
		if failed := p.failed("stop pod"); failed != nil {
			s.failed("Its stop failed, and is tried again: ", failed.Error, "", podFailures)
		}
	case NotReady:
		s.State = "It is stopped."
		s.Cause = p.stopCause()
	case Gone:
		p.podGone(&s)
	}
	if p.Underway != "" {
		if !strings.Contains(s.Cause, rightNow) { // of a container
			s.Cause = join(s.Cause, rightNow+p.Underway)
		}
		s.hint("See what it waits for with: nodectl ops")
	}
	return s
}

// podReady sums the containers up, and the images that they lack.
func (p Subject) podReady(s *Story, parts []Part) {
	running, done := 0, 0
	var bad []Part
	for _, part := range parts {
		switch {
		case part.trouble():
			bad = append(bad, part)
		case part.State == Running:
			running++
		case part.State == Exited:
			done++
		}
	}
	bad = append(bad, p.unpulled()...)
	switch {
	case len(bad) > 0:
		troubles(s, bad)
	case len(parts) == 0 && p.Underway == "":
		s.Cause = "It has no containers, and nobody asked for one yet."
		if p.Now.Sub(p.Created) > kubeletPace {
			s.Cause = "It has no containers, and nobody asked for one: what holds it up is on kubelet's side, such as a ConfigMap or Secret that is missing, an image that imagePullPolicy forbids to pull, or runAsNonRoot."
		}
		s.hint("See what kubelet says with: kubectl describe pod -n %s %s; and in its log: journalctl -u kubelet | grep %s", p.Names.Namespace, p.Names.Pod, p.Names.Pod)
	case running+done < len(parts):
		s.Cause = fmt.Sprintf("Not all is started yet: of its %s %d run", count(len(parts), "container"), running)
		if done > 0 {
			s.Cause += fmt.Sprintf(", and %d ended with exit code 0", done)
		}
		s.Cause += "."
	case running == 0 && done > 0:
		s.Cause = fmt.Sprintf("It is done: %s ended with exit code 0.", count(done, "container"))
	case len(parts) > 0:
		s.Cause = fmt.Sprintf("All is well: %s running", count(running, "container"))
		if done > 0 {
			s.Cause += fmt.Sprintf(", and %d ended with exit code 0", done)
		}
		s.Cause += "."
	}
}

// manyTroubles is from how many on the first is told of, and the others are
// named.
const manyTroubles = 3

// kubeletPace is within which kubelet asks for containers when nothing is
// wrong.
const kubeletPace = 10 * time.Second

// troubles tells of what is wrong with parts of a pod.
func troubles(s *Story, bad []Part) {
	var names []string
	for _, part := range bad {
		names = append(names, part.Name)
	}
	if len(bad) >= manyTroubles {
		s.Cause = fmt.Sprintf("There is trouble with %d of its parts: %s. The first of them:", len(bad), strings.Join(names, ", "))
		bad = bad[:1]
	}
	for _, part := range bad {
		s.Cause = join(s.Cause, part.Name+": "+part.Story.Cause)
		s.hintOnce(part.Story.Hints...)
	}
}

// unpulled are the images that were asked for and could not be had, unless
// they came later.
func (p Subject) unpulled() []Part {
	latest := map[string]recorder.Entry{}
	var order []string
	for _, e := range p.Entries {
		if e.Kind != recorder.KindCall || e.What != "PullImage" || e.Text == "" {
			continue
		}
		if _, known := latest[e.Text]; !known {
			order = append(order, e.Text)
		}
		latest[e.Text] = e
	}
	var bad []Part
	for _, ref := range order {
		if e := latest[ref]; e.Error != "" {
			part := Part{Name: "image " + ref, State: Gone}
			part.Story.failed("It could not be pulled, tried last "+p.ago(e.At)+": ", e.Error, ref, pullFailures)
			bad = append(bad, part)
		}
	}
	return bad
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
	failed := p.failed("run pod")
	if failed == nil {
		failed = p.last(func(e recorder.Entry) bool {
			return e.Kind == recorder.KindCall && e.What == "RunPodSandbox" && e.Error != ""
		})
	}
	if failed == nil {
		s.Cause = "The agent was stopped or killed while it was made."
		return
	}
	s.State += " That was last tried " + p.ago(failed.At) + "."
	s.failed(notMade, failed.Error, "", podFailures)
}
