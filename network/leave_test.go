package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/failpoint"
)

// TestAddressReused: a pod gets the address another one has just given back,
// whose links are still there, and everybody who knew that one reaches it.
func TestAddressReused(t *testing.T) {
	rooted(t)
	t.Cleanup(func() { tidy(t) })
	cfg := testConfig(t)
	writeConf(t, cfg, "10-test.conflist", fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "cni-test", "plugins": [
		{"type": "bridge", "bridge": "cnitest0", "isDefaultGateway": true,
		 "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.77.0.0/29", "rangeStart": "10.77.0.2", "rangeEnd": "10.77.0.3"}],
		  [{"subnet": "fd77::/64", "rangeStart": "fd77::2", "rangeEnd": "fd77::3"}]]}},
		{"type": "portmap", "capabilities": {"portMappings": true}}]}`, t.TempDir()))
	m := newManager(t, cfg)
	client := newPod(t)
	mustAdd(t, m, client)
	host, from := hostPlace(t), openPlace(t, "client", client.NetNS)

	// Nothing leaves for good while this is held.
	release, err := failpoint.Enable("network.reap.before=error:1000")
	if err != nil {
		t.Fatal(err)
	}
	var last netip.Addr
	for range 3 {
		a := newPod(t)
		a.Ports = []PortMapping{{Protocol: TCP, HostPort: 8080, ContainerPort: 80}}
		result := mustAdd(t, m, a)
		addr := result.Addresses[0].Addr()
		if last.IsValid() && addr != last {
			t.Errorf("got %s, want %s again", addr, last)
		}
		last = addr
		openPlace(t, "pod", a.NetNS).serve(t, 80)
		for _, addr := range result.Addresses {
			target := netip.AddrPortFrom(addr.Addr(), 80).String()
			host.mustAsk(t, "tcp", target)
			from.mustAsk(t, "tcp", target)
		}
		host.mustAsk(t, "tcp", "127.0.0.1:8080")
		if err := m.Del(context.Background(), a); err != nil {
			t.Fatal(err)
		}
		if in, err := m.readIntent(a.PodID); err != nil || in == nil {
			t.Errorf("intent of a pod whose links are there: %v, %v", in, err)
		}
	}
	release()
	settle(t, m)
	mustDel(t, m, client)
}

// TestWiredAgainWhileLeaving: the same pod comes back before its links are
// gone.
func TestWiredAgainWhileLeaving(t *testing.T) {
	rooted(t)
	m := newManager(t, testConfig(t))
	a := newPod(t)
	for range 3 {
		mustAdd(t, m, a)
		for range 2 {
			if err := m.Del(context.Background(), a); err != nil {
				t.Fatal(err)
			}
		}
	}
	settle(t, m)
}

// TestCloseWhileLeaving: the manager is closed although the links cannot be
// deleted; the next one deletes them.
func TestCloseWhileLeaving(t *testing.T) {
	rooted(t)
	cfg := testConfig(t)
	first, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	release, err := failpoint.Enable("network.reap.before=error:1000")
	if err != nil {
		t.Fatal(err)
	}
	a := newPod(t)
	mustAdd(t, first, a)
	if err := first.Del(context.Background(), a); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := first.Add(ctx, a); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Add while links of the pod are there: %v", err)
	}
	first.Close()
	release()
	next := newManager(t, cfg)
	if err := next.GC(context.Background(), nil); err != nil {
		t.Error(err)
	}
	checkNothing(t, next, cfg.StateDir)
}
