package network

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/internal/failpoint"
)

const childJob = "NODEAGENT_TEST_JOB"

// job is what a child of a test does before it is killed.
type job struct {
	Config     Config
	Attachment Attachment
	// Del says that the pod is unwired again.
	Del bool
}

// TestChild is no test but the process that TestKilledAnywhere kills.
func TestChild(t *testing.T) {
	text := os.Getenv(childJob)
	if text == "" {
		t.Skip("is only run by another test")
	}
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		t.Fatal(err)
	}
	m, err := New(j.Config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Add(context.Background(), j.Attachment); err != nil {
		t.Fatal(err)
	}
	if j.Del {
		mustDel(t, m, j.Attachment)
	}
}

// TestKilledAnywhere: the agent is killed in the midst of Add, or of Del; the
// next one takes everything back, and the same pod can then be wired.
func TestKilledAnywhere(t *testing.T) {
	for _, point := range []string{
		"network.add.intent.before", "network.add.intent.after", "network.add.loopback.after", "network.bridge.bridge",
		"network.bridge.veth", "network.bridge.masquerade", "network.bridge.wait", "network.add.plugins.after",
		"network.bandwidth.link", "network.bridge.down", "network.bridge.released", "network.reap.before", "network.reap.after",
	} {
		for _, network := range []string{"embedded", "configured"} {
			t.Run(network+" "+point, func(t *testing.T) {
				rooted(t)
				cfg := testConfig(t)
				data := filepath.Join(cfg.StateDir, "ipam")
				if network == "configured" {
					data = filepath.Join(t.TempDir(), "addresses")
					writeConf(t, cfg, "10-test.conflist", conflist(data))
					t.Cleanup(func() { tidy(t) })
				}
				killedAt(t, point, cfg, data)
			})
		}
	}
}

func killedAt(t *testing.T, point string, cfg Config, data string) {
	a := newPod(t)
	a.Ports = []PortMapping{{Protocol: TCP, HostPort: 8080, ContainerPort: 80}}
	a.Annotations = map[string]string{ingressAnnotation: "10M", egressAnnotation: "20M"}
	text, err := json.Marshal(job{cfg, a, true})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), childJob+"="+string(text), failpoint.EnvVar+"="+point+"=exit")
	out, err := cmd.CombinedOutput()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("%v: %s", err, out)
	}
	m := newManager(t, cfg)
	if err := m.GC(context.Background(), nil); err != nil {
		t.Error(err)
	}
	checkNothing(t, m, data)
	mustAdd(t, m, a)
	mustDel(t, m, a)
}

// TestRebooted: a reboot took namespaces, links and rules, and all that is on tmpfs;
// the next agent gives back what is on disk, and wires pods again.
func TestRebooted(t *testing.T) {
	ways(t, func(t *testing.T, cfg Config) {
		data := filepath.Join(t.TempDir(), "addresses")
		writeConf(t, cfg, "10-test.conflist", conflist(data))
		before, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		a := newPod(t)
		a.Ports = []PortMapping{{Protocol: TCP, HostPort: 8080, ContainerPort: 80}}
		mustAdd(t, before, a)
		before.Close()
		dropNetNS(t, a.NetNS)
		tidy(t)
		nft(t, "flush", "ruleset")
		left, err := filepath.Glob(filepath.Join(cfg.StateDir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range left {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		}
		m := newManager(t, cfg)
		if err := m.GC(context.Background(), nil); err != nil {
			t.Error(err)
		}
		checkNothing(t, m, data)
		b := newPod(t)
		b.Ports = a.Ports
		mustAdd(t, m, b)
		mustDel(t, m, b)
	})
}

// TestForbiddingChainIsTold: others' rules are not touched, but told.
func TestForbiddingChainIsTold(t *testing.T) {
	rooted(t)
	m := newManager(t, testConfig(t))
	if problems := m.Info().Problems; len(problems) > 0 {
		t.Errorf("got %q", problems)
	}
	nft(t, "add", "table", "ip", "strict")
	defer nft(t, "delete", "table", "ip", "strict")
	nft(t, "add", "chain", "ip", "strict", "FORWARD", "{ type filter hook forward priority 0; policy drop; }")
	problems := m.Info().Problems
	if len(problems) != 1 || !strings.Contains(problems[0], "table ip strict") {
		t.Errorf("got %q", problems)
	}
}

// TestFlushedWhileDown: somebody flushed the packet filter while no agent ran;
// the next one writes it as it was.
func TestFlushedWhileDown(t *testing.T) {
	for _, flush := range [][]string{{"flush", "ruleset"}, {"flush", "table", "inet"}} {
		t.Run(strings.Join(flush, " "), func(t *testing.T) {
			rooted(t)
			cfg := testConfig(t)
			writeConf(t, cfg, "10-test.conflist", conflist(filepath.Join(t.TempDir(), "addresses")))
			t.Cleanup(func() { tidy(t) })
			testFlushed(t, cfg, flush)
		})
	}
}

func testFlushed(t *testing.T, cfg Config, flush []string) {
	first := newManager(t, cfg)
	a, b := newPod(t), newPod(t)
	a.Ports = []PortMapping{{Protocol: TCP, HostPort: 8080, ContainerPort: 80}, {Protocol: UDP, HostPort: 8080, ContainerPort: 80}}
	mustAdd(t, first, a)
	mustAdd(t, first, b)
	if flush[1] == "table" {
		flush = append(slices.Clone(flush), cfg.tableName())
	}
	before := sortedLines(nft(t, "list", "ruleset"))
	nft(t, flush...)
	next := newManager(t, cfg)
	if err := next.GC(context.Background(), []Attachment{a, b}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, sortedLines(nft(t, "list", "ruleset"))); diff != "" {
		t.Errorf("the packet filter is another one (-before +after):\n%s", diff)
	}
	openPlace(t, "pod", a.NetNS).serve(t, 80)
	for _, network := range []string{"tcp", "udp"} {
		hostPlace(t).mustAsk(t, network, "127.0.0.1:8080")
	}
	mustDel(t, next, a)
	mustDel(t, next, b)
}

// sortedLines is a text by which the order of lines, and of what is in them,
// does not matter.
func sortedLines(text string) []string {
	var words []string
	for line := range strings.Lines(text) {
		for word := range strings.SplitSeq(strings.NewReplacer("elements = {", "", "}", "").Replace(line), ",") {
			if word = strings.TrimSpace(word); word != "" {
				words = append(words, word)
			}
		}
	}
	slices.Sort(words)
	return words
}
