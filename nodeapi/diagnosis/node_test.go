package diagnosis

import (
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/recorder"
)

// What went wrong and was not well later is told, the latest first.
func TestTroubles(t *testing.T) {
	made := func(pod, container, name string) recorder.Entry {
		return recorder.Entry{Kind: recorder.KindMade, Pod: pod, Container: container, Names: &recorder.Names{Namespace: "a", Pod: name, Container: container, Image: "img"}}
	}
	done := func(what, pod, container, failure string, ago time.Duration) recorder.Entry {
		return recorder.Entry{Kind: recorder.KindOperation, What: what, Pod: pod, Container: container, Error: failure, At: before(ago)}
	}
	pulled := func(ref, failure string, ago time.Duration) recorder.Entry {
		return recorder.Entry{Kind: recorder.KindCall, What: "PullImage", Pod: "p1", Text: ref, Error: failure, At: before(ago)}
	}
	entries := []recorder.Entry{
		made("p1", "", "web"), made("p1", "c1", "web"), made("p2", "", "broken"), made("p3", "", "late"), made("p4", "", "old"),
		done("run pod", "p4", "", "network: x", 2*time.Hour),
		done("run pod", "p2", "", "network: wire pod: no usable network configuration in /etc/cni/net.d: x", 5*time.Minute),
		done("run pod", "p3", "", "network: x", 4*time.Minute), done("run pod", "p3", "", "", 3*time.Minute),
		pulled("r.io/a:1", "pull r.io/a:1: 404 Not Found", 2*time.Minute),
		pulled("r.io/b:1", "pull r.io/b:1: 404 Not Found", 2*time.Minute), pulled("r.io/b:1", "", time.Minute),
		done("create container", "p1", "c1", "", 50*time.Second),
		{Kind: recorder.KindExit, Pod: "p1", Container: "c1", At: before(30 * time.Second), Exit: &recorder.Exit{Code: 3, Ran: time.Second}},
		made("p5", "c5", "stopped"), {Kind: recorder.KindSignal, What: "SIGTERM", Pod: "p5", Container: "c5", At: before(20 * time.Second)},
		{Kind: recorder.KindExit, Pod: "p5", Container: "c5", At: before(19 * time.Second), Exit: &recorder.Exit{Code: 143, Signal: "SIGTERM"}},
		made("p6", "c6", "probed"), {Kind: recorder.KindCall, What: "ExecSync", Text: "check", Error: "exit code 1", By: "kubelet (PID 4)", Pod: "p6", Container: "c6", At: before(15 * time.Second)},
		{Kind: recorder.KindCall, What: "RunPodSandbox", Text: "a/refused", Error: "dns: odd", At: before(time.Second)},
		{Kind: recorder.KindCall, What: "StopContainer", Error: "x", At: before(time.Second)},
	}
	var lines []string
	for _, trouble := range Troubles(entries, before(time.Hour), func(n recorder.Names) string { return n.Namespace + "/" + n.Pod + "/" + n.Container }) {
		lines = append(lines, trouble.Name+": "+trouble.Cause)
	}
	want := `a/refused: It could not be made: dns: odd
a/probed/c6: A command that was run in it by kubelet (PID 4) failed: "check": exit code 1.
a/web/c1: It ended with exit code 3 after 1s.
a/web/: Its image r.io/a:1 could not be pulled: its registry has no such image or tag. The error: 404 Not Found
a/broken/: It could not be made: none of the CNI configurations in /etc/cni/net.d can be used. The error: wire pod: no usable network configuration in /etc/cni/net.d: x`
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
