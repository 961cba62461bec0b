package diagnosis

import (
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/recorder"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func before(d time.Duration) time.Time { return now.Add(-d) }

// exited is a container that ran for an hour and ended a minute ago.
func exited(code int, reason, signal string, entries ...recorder.Entry) Subject {
	entries = append(entries, recorder.Entry{Kind: recorder.KindExit, At: before(time.Minute), Exit: &recorder.Exit{
		Code: code, Reason: reason, Signal: signal, Ran: time.Hour, Usage: recorder.Usage{MemoryLimit: 64 << 20, MemoryPeak: 60 << 20},
	}})
	return Subject{
		Now: now, State: Exited, Started: before(time.Hour + time.Minute), Finished: before(time.Minute), ExitCode: code, Reason: reason, Entries: entries,
	}
}

func signal(name, by string, ago time.Duration) recorder.Entry {
	return recorder.Entry{Kind: recorder.KindSignal, What: name, By: by, At: before(ago)}
}

func TestContainer(t *testing.T) {
	for name, test := range map[string]struct {
		c    Subject
		want []string
	}{
		"success":      {exited(0, "Completed", ""), []string{"ended with exit code 0 after running for 1h0m0s, about a minute ago", "said that all is well"}},
		"failure":      {exited(1, "Error", ""), []string{"said that something failed", "It wrote nothing"}},
		"not found":    {exited(127, "Error", ""), []string{"did not find a program"}},
		"out of mem":   {exited(137, "OOMKilled", "SIGKILL"), []string{"(SIGKILL)", "used all of the memory it may have (64MiB)", "resources.limits.memory"}},
		"stopped":      {exited(143, "Error", "SIGTERM", signal("SIGTERM", "kubelet (PID 4)", 61*time.Second)), []string{"It was stopped: SIGTERM was sent to it by kubelet (PID 4)."}},
		"stopped well": {exited(0, "Completed", "", signal("SIGTERM", "", 61*time.Second)), []string{"It was stopped: SIGTERM was sent to it by nodeagent itself."}},
		"ignored":      {exited(137, "Error", "SIGKILL", signal("SIGTERM", "x", 71*time.Second), signal("SIGKILL", "x", 61*time.Second)), []string{"did not end of that within 11s, and was killed", "ignores SIGTERM"}},
		"foreign kill": {exited(137, "Error", "SIGKILL"), []string{"which the agent did not send", "neither did the kernel", "auditctl"}},
		"old signal":   {exited(137, "Error", "SIGKILL", signal("SIGTERM", "x", 30*time.Minute)), []string{"which the agent did not send"}},
		"reload":       {exited(1, "Error", "", signal("SIGHUP", "x", 61*time.Second)), []string{"something failed"}},
		"crash":        {exited(139, "Error", "SIGSEGV"), []string{"crashed (SIGSEGV)"}},
		"lost":         {exited(255, "SupervisorLost", ""), []string{"no supervisor was there"}},
		"no program": {Subject{Now: now, State: Exited, Finished: before(time.Second), Reason: "StartError", Message: `exec: "x": executable file not found in $PATH`},
			[]string{"It could not be started: its program x is in no folder of PATH in the image. The error: exec"}},
		"created": {Subject{Now: now, State: Created, Created: before(time.Hour)}, []string{"about an hour ago", "Nobody started it"}},
		"slow": {Subject{Now: now, State: Running, Started: before(time.Hour), Usage: recorder.Usage{Periods: 100, ThrottledPeriods: 80, Throttled: time.Minute, MemoryPeak: 95, MemoryLimit: 100}},
			[]string{"It has been running for about an hour", "80 % of all periods", "95B of the 100B"}},
		"given up": {Subject{Now: now, State: Exited, Started: before(time.Hour), Finished: before(time.Minute), ExitCode: 3, Names: recorder.Names{Container: "web"}, GaveUp: 1},
			[]string{"Its restart policy gave up after 1 restart.", "nodectl start web"}},
		"unwell": {Subject{Now: now, State: Running, Started: before(time.Hour), Names: recorder.Names{Owner: "nodectl", Container: "web"}, Health: Health{Unhealthy: true, Streak: 4, Output: "no route\n", Command: `/bin/sh -c "wget x"`}},
			[]string{"Its health check failed, 4 times in a row. The last time it said: \"no route\".", `nodectl exec web /bin/sh -c "wget x"`, "nodectl restart web"}},
		"paused": {Subject{Now: now, State: Paused, Names: recorder.Names{Owner: "cri", Namespace: "n", Pod: "p", Container: "c"}, Entries: []recorder.Entry{{Kind: recorder.KindCall, What: "Pause", By: "nodectl (PID 9)", At: before(time.Minute)}}},
			[]string{"frozen", "about a minute ago by nodectl (PID 9)", "nodectl unpause n/p/c"}},
		"removed": {Subject{Now: now, State: Gone, Entries: append(exited(3, "Error", "").Entries, recorder.Entry{Kind: recorder.KindGone, By: "kubelet (PID 4)", At: before(2 * time.Second)})},
			[]string{"It was removed 2 seconds ago by kubelet (PID 4). Before that it ended with exit code 3"}},
		"never made": {Subject{Now: now, State: Gone, Entries: []recorder.Entry{{Kind: recorder.KindOperation, What: "create container", Error: "write: no space left on device"}}},
			[]string{"It could not be made", "nodectl system df"}},
		"underway": {Subject{Now: now, State: Running, Underway: "remove container, at stage x.", Former: []int{7, 1}}, []string{"Right now: remove container", "nodectl ops", "It was started 2 times before, and ended with exit code 7, 1."}},
		"unknown":  {Subject{Now: now, State: Unknown}, []string{"does not answer"}},
	} {
		s := Container(test.c)
		text := s.State + " " + s.Cause + " " + strings.Join(s.Hints, " ")
		for _, want := range test.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in %q", name, want, text)
			}
		}
	}
}

func TestPod(t *testing.T) {
	failed := []recorder.Entry{{Kind: recorder.KindOperation, What: "run pod", Error: "network: no address left"}}
	for name, test := range map[string]struct {
		got  Story
		want string
	}{
		"empty":   {Pod(Subject{Now: now, State: Ready, Created: before(time.Hour)}, nil), "no containers"},
		"well":    {Pod(Subject{Now: now, State: Ready}, []Part{{Name: "a", State: Running, Story: Story{Cause: wellKnown}}}), "All is well: 1 container running"},
		"bad":     {Pod(Subject{Now: now, State: Ready}, []Part{{Name: "a", State: Exited, Exit: 1, Story: Story{Cause: "It crashed."}}}), "a: It crashed."},
		"failed":  {Pod(Subject{Now: now, State: Gone, Entries: failed}, nil), "It could not be made: no address is left for it in the network. The error: no address left"},
		"stopped": {Pod(Subject{Now: now, State: NotReady, Entries: []recorder.Entry{{Kind: recorder.KindOperation, What: "stop pod", By: "kubelet", At: now}}}, nil), "It was stopped just now by kubelet."},
		"stuck":   {Pod(Subject{Now: now, State: Stopping, Entries: []recorder.Entry{{Kind: recorder.KindOperation, What: "stop pod", Error: "cgroup: busy"}}}, nil), "tried again: its cgroup could not be made or removed. The error: cgroup: busy"},
	} {
		if text := test.got.State + " " + test.got.Cause + " " + strings.Join(test.got.Hints, " "); !strings.Contains(text, test.want) {
			t.Errorf("%s: no %q in %q", name, test.want, text)
		}
	}
}

func TestTimeline(t *testing.T) {
	entries := []recorder.Entry{
		{Kind: recorder.KindMade, At: before(9 * time.Second)},
		{Kind: recorder.KindCall, What: "StartContainer", By: "kubelet", Container: "c", At: before(8 * time.Second)},
		{Kind: recorder.KindOperation, What: "start container", By: "kubelet", Container: "c", At: before(8 * time.Second), Took: time.Second,
			Steps: []recorder.Step{{Name: "begin"}, {Name: "supervisor", Took: 990 * time.Millisecond}}},
		{Kind: recorder.KindExit, Container: "c", At: before(time.Second), Exit: &recorder.Exit{Code: 137, Signal: "SIGKILL", OOMKilled: true, Ran: 7 * time.Second,
			Usage: recorder.Usage{MemoryPeak: 1 << 20, MemoryLimit: 1 << 20, CPU: time.Second, Periods: 4, ThrottledPeriods: 2, Throttled: time.Second}}},
		{Kind: recorder.KindSignal, What: "SIGTERM", At: before(2 * time.Second)},
		{Kind: recorder.KindOOM, Count: 12, At: before(1500 * time.Millisecond)},
	}
	var lines []string
	for _, m := range Timeline(entries) {
		lines = append(lines, m.Text)
	}
	want := "start container, asked by kubelet: supervisor 990ms\nSIGTERM sent by nodeagent itself\n" +
		"the kernel's OOM killer killed 12 processes in it\n" +
		"ended with exit code 137 (SIGKILL) after 7s, killed for want of memory; memory peak 1MiB of 1MiB, CPU 1s, throttled in 50 % of periods, 1s"
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got\n%s", got)
	}
}
