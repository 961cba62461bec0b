package network

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
)

// TestAgentsThatBeginAtOnce: each has subnets of its own, though none had any when they began to choose.
func TestAgentsThatBeginAtOnce(t *testing.T) {
	rooted(t)
	var managers []*Manager
	for i := range 6 {
		cfg := testConfig(t)
		cfg.Instance = fmt.Sprintf("agent%d", i)
		managers = append(managers, newManager(t, cfg))
	}
	var begun sync.WaitGroup
	for _, m := range managers {
		begun.Go(func() {
			if err := m.Status(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	begun.Wait()
	owners := map[netip.Prefix]int{}
	for i, m := range managers {
		for _, subnet := range m.fallback.Subnets {
			if other, taken := owners[subnet]; taken {
				t.Errorf("agents %d and %d both have %s", other, i, subnet)
			}
			owners[subnet] = i
		}
	}
	if len(owners) < len(managers) {
		t.Errorf("%d agents have %d subnets", len(managers), len(owners))
	}
}
