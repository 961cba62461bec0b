package diagnosis

import (
	"fmt"
	"slices"
	"time"

	"github.com/nodeagent/nodeagent/internal/recorder"
)

// Trouble is the last thing that went wrong with a pod or container.
type Trouble struct {
	// Name is NAMESPACE/POD[/CONTAINER], or what a person called a container.
	Name, ID string
	At       time.Time
	Cause    string
}

// troublesKept is how many are told of.
const troublesKept = 30

// Troubles are what went wrong since a time and was not well later, the latest
// first. title is what a person calls those names.
func Troubles(entries []recorder.Entry, since time.Time, title func(recorder.Names) string) []Trouble {
	names := map[string]recorder.Names{}
	told := map[string]time.Time{} // when a container was told to end
	latest := map[string]Trouble{}
	for _, e := range ordered(entries) { // an end may be noted before the signal that it came of
		id := e.Container
		if id == "" {
			id = e.Pod
		}
		if e.Kind == recorder.KindMade && e.Names != nil {
			names[id] = *e.Names
			continue
		}
		if e.Kind == recorder.KindSignal && e.Error == "" && deadly(e.What) {
			told[id] = e.At
		}
		if e.Kind == recorder.KindExit && e.At.Sub(told[id]) < signalMemory {
			continue // as somebody wanted
		}
		name := e.Text // of a pod that was refused before it had an ID
		if n, known := names[id]; known {
			name = title(n)
		} else if id != "" || e.What != "RunPodSandbox" {
			continue
		}
		key := name
		if e.What == "PullImage" {
			key = name + " " + e.Text
		}
		cause, ended := trouble(e, names[id].Image)
		switch {
		case cause != "" && e.At.After(since):
			latest[key] = Trouble{Name: name, ID: id, At: e.At, Cause: cause}
		case ended:
			delete(latest, key)
		}
	}
	var all []Trouble
	for _, t := range latest {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b Trouble) int {
		if order := b.At.Compare(a.At); order != 0 {
			return order
		}
		return slices.Compare([]string{a.Name, a.Cause}, []string{b.Name, b.Cause})
	})
	return all[:min(len(all), troublesKept)]
}

// trouble says what went wrong; over says that what did before is so no more.
func trouble(e recorder.Entry, image string) (cause string, over bool) {
	explain := func(lead, image string, tables ...[]failure) (string, bool) {
		if e.Error == "" {
			return "", true
		}
		text, _ := explained(e.Error, image, tables...)
		return lead + text, false
	}
	switch {
	case e.Kind == recorder.KindOperation && e.What == "run pod", e.Kind == recorder.KindCall && e.What == "RunPodSandbox":
		return explain(notMade, "", podFailures)
	case e.Kind == recorder.KindOperation && e.What == "stop pod":
		return explain("It could not be stopped: ", "", podFailures)
	case e.Kind == recorder.KindOperation && e.What == "create container":
		return explain(notMade, image, makeFailures)
	case e.Kind == recorder.KindOperation && e.What == "start container" && e.Error != "":
		return explain(notStarted, image, startFailures, makeFailures)
	case e.Kind == recorder.KindCall && e.What == "PullImage":
		return explain("Its image "+e.Text+" could not be pulled: ", e.Text, pullFailures)
	case e.Kind == recorder.KindCall && e.What == "ExecSync" && e.Error != "":
		return fmt.Sprintf("A command that was run in it%s failed: %q: %s.", by(e.By), e.Text, e.Error), false
	case e.Kind == recorder.KindExit && e.Exit != nil && e.Exit.Reason != reasonStart:
		if e.Exit.Code == 0 && !e.Exit.OOMKilled {
			return "", true
		}
		return "It " + ending(e.Exit) + ".", false
	}
	return "", false
}
