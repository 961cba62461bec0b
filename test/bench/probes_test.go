package bench

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

const (
	// probedPods is what kubelet allows on a node, each probed once in probePeriod for as long as probing.
	probedPods  = 110
	probePeriod = time.Second
	probing     = time.Minute
	// maxCores is what the probes may take of processors.
	maxCores = 0.5
)

// ticksPerSecond is the unit of /proc/stat (USER_HZ).
const ticksPerSecond = 100

// What kubelet's exec probes take of a node: 110 pods, the usual seccomp profile, `true` each second.
func TestProbes(t *testing.T) {
	testenv.Root(t)
	if os.Getenv("NODEAGENT_TEST_BENCH") != "yes" {
		t.Skip("measures; run make bench-probes")
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	registry := testenv.Registry(t)
	fmt.Printf("%d pods, a probe each second for %v\n%-12s %8s %10s %10s %10s\n", probedPods, probing, "", "cores", "median", "99 of 100", "late")
	for _, one := range []*peer{newContainerd(t, registry), newAgent(t, registry)} {
		one.security = &runtimeapi.LinuxContainerSecurityContext{
			Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
		}
		for range probedPods {
			one.pod(ctx, t, false)
		}
		idle := one.cores(ctx, t, probing/4, func() {})
		var took []time.Duration
		var late int
		busy := one.cores(ctx, t, probing, func() { took, late = one.probe(ctx, t) })
		one.removeAll(ctx, t)
		fmt.Printf("%-12s %8.3f %7.1f ms %7.1f ms %10d\n", one.name, busy-idle, median(took).Seconds()*1000, took[len(took)*99/100].Seconds()*1000, late)
		if one.name == "nodeagent" && busy-idle > maxCores {
			t.Errorf("probes take %.3f cores, at most %.2f are allowed", busy-idle, maxCores)
		}
	}
}

// probe runs `true` in each container once a period, and returns how long each took, sorted, and how many were not
// begun in their period because the one before was not done.
func (p *peer) probe(ctx context.Context, t *testing.T) (took []time.Duration, late int) {
	list, err := p.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	// What was begun in time is waited for.
	begin, cancel := context.WithTimeout(ctx, probing)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i, c := range list.Containers {
		wg.Go(func() {
			if !wait(begin, probePeriod*time.Duration(i)/probedPods) {
				return
			}
			next := time.Now()
			for {
				began := time.Now()
				answer, err := p.runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: c.Id, Cmd: []string{"true"}, Timeout: 10})
				if err != nil || answer.ExitCode != 0 {
					t.Errorf("%s: probe: %v, %v", p.name, answer, err)
					return
				}
				mu.Lock()
				took = append(took, time.Since(began))
				next = next.Add(probePeriod)
				for ; time.Now().After(next); next = next.Add(probePeriod) {
					late++
				}
				mu.Unlock()
				if !wait(begin, time.Until(next)) {
					return
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	return took, late
}

// wait waits, and tells whether ctx still lasts then.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// cores is how many processors the machine uses on average while do runs, and then until the time is over.
func (p *peer) cores(ctx context.Context, t *testing.T, during time.Duration, do func()) float64 {
	t.Helper()
	began, before := time.Now(), busyTicks(t)
	do()
	wait(ctx, during-time.Since(began))
	return float64(busyTicks(t)-before) / ticksPerSecond / time.Since(began).Seconds()
}

// busyTicks is how long all processors did something, since the machine began.
func busyTicks(t *testing.T) (ticks int) {
	t.Helper()
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	var n [8]int
	line, _, _ := strings.Cut(string(data), "\n")
	if _, err := fmt.Sscanf(line, "cpu %d %d %d %d %d %d %d %d", &n[0], &n[1], &n[2], &n[3], &n[4], &n[5], &n[6], &n[7]); err != nil {
		t.Fatal(err)
	}
	// Without being idle or waiting for a disk, nor what others had of the machine.
	return n[0] + n[1] + n[2] + n[5] + n[6]
}
