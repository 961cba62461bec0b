package bench

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

const (
	// calls is how often each call is timed in each runtime, slowCalls how often where there are pauses between.
	calls, slowCalls = 40, 12
	// maxStatsRatio and maxExecRatio of our median to containerd's are what this project promises.
	maxStatsRatio = 0.15
	maxExecRatio  = 0.35
	// apart is the pause before a list of statistics that shall not find any figures of the one before: longer than
	// either runtime keeps them.
	apart = 1200 * time.Millisecond
)

// call is a call of the CRI being measured.
type call struct {
	name  string
	max   float64
	pause time.Duration
	do    func(ctx context.Context, p *peer) error
}

var measuredCalls = []call{
	{"ListContainerStats", maxStatsRatio, 0, listContainerStats},
	{"ListPodSandboxStats", maxStatsRatio, 0, listPodStats},
	{"ListContainerStats, apart", maxStatsRatio, apart, listContainerStats},
	{"ListPodSandboxStats, apart", maxStatsRatio, apart, listPodStats},
	{"ExecSync of true", maxExecRatio, 0, execTrue},
}

func listContainerStats(ctx context.Context, p *peer) error {
	list, err := p.runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
	if err == nil && len(list.Stats) != manyPods {
		err = fmt.Errorf("statistics of %d containers, want %d", len(list.Stats), manyPods)
	}
	return err
}

func listPodStats(ctx context.Context, p *peer) error {
	list, err := p.runtime.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
	if err == nil && len(list.Stats) != manyPods {
		err = fmt.Errorf("statistics of %d pods, want %d", len(list.Stats), manyPods)
	}
	return err
}

func execTrue(ctx context.Context, p *peer) error {
	ctrs, err := p.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return err
	}
	answer, err := p.runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: ctrs.Containers[0].Id, Cmd: []string{"true"}, Timeout: 10})
	if err == nil && answer.ExitCode != 0 {
		err = fmt.Errorf("true ended with %d: %s", answer.ExitCode, answer.Stderr)
	}
	return err
}

// Calls with many pods running, here and in containerd.
func TestCalls(t *testing.T) {
	testenv.Root(t)
	if os.Getenv("NODEAGENT_TEST_BENCH") != "yes" {
		t.Skip("measures; run make bench-cri")
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	registry := testenv.Registry(t)
	theirs, ours := newContainerd(t, registry), newAgent(t, registry)
	for _, one := range []*peer{theirs, ours} {
		for range manyPods {
			one.pod(ctx, t, false)
		}
		defer one.removeAll(ctx, t)
	}
	fmt.Printf("%d pods, medians of up to %d calls\n%-28s %12s %12s %8s %8s\n", manyPods, calls, "", "containerd", "nodeagent", "ratio", "at most")
	for _, c := range measuredCalls {
		their, our := c.measure(ctx, t, theirs, ours)
		ratio := float64(our) / float64(their)
		fmt.Printf("%-28s %9.2f ms %9.2f ms %8.3f %8.2f\n", c.name, their.Seconds()*1000, our.Seconds()*1000, ratio, c.max)
		if ratio > c.max {
			t.Errorf("%s takes %.3f of containerd's time, at most %.2f is allowed", c.name, ratio, c.max)
		}
	}
}

// measure returns the median times of the call in two runtimes, which take turns, so that both have a noisy machine's
// good and bad moments; the first round is not counted.
func (c call) measure(ctx context.Context, t *testing.T, theirs, ours *peer) (their, our time.Duration) {
	t.Helper()
	peers := []*peer{theirs, ours}
	timings := make([][]time.Duration, len(peers))
	rounds := calls
	if c.pause > 0 {
		rounds = slowCalls
	}
	for round := range rounds + 1 {
		select {
		case <-time.After(c.pause):
		case <-ctx.Done():
		}
		for turn := range peers {
			who := (round + turn) % len(peers)
			began := time.Now()
			if err := c.do(ctx, peers[who]); err != nil {
				t.Fatalf("%s: %s: %v", peers[who].name, c.name, err)
			}
			if round > 0 {
				timings[who] = append(timings[who], time.Since(began))
			}
		}
	}
	return median(timings[0]), median(timings[1])
}

func (p *peer) removeAll(ctx context.Context, t *testing.T) {
	t.Helper()
	pods, err := p.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods.Items {
		p.remove(ctx, t, pod.Id)
	}
}
