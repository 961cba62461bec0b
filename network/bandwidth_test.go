package network

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

// shaped is what limits a pod.
type shaped struct {
	Result, Raw any
	Limits      []string
}

// limitsOf lists what limits packets of a link.
func limitsOf(t *testing.T, name string) []string {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	found, err := netlink.QdiscList(link)
	if err != nil {
		t.Fatal(err)
	}
	list := []string{fmt.Sprintf("%s %d %d", link.Type(), link.Attrs().MTU, link.Attrs().TxQLen)}
	for _, one := range found {
		switch q := one.(type) {
		case *netlink.Tbf:
			list = append(list, fmt.Sprintf("tbf %x %d %d %d", q.Parent, q.Rate, q.Limit, q.Buffer))
		case *netlink.Ingress:
			list = append(list, fmt.Sprintf("ingress %x", q.Parent))
		}
	}
	return list
}

// TestBandwidth: limits are those of the plugin, they let packets through, and
// they go with the pod, also when another agent takes it back.
func TestBandwidth(t *testing.T) {
	seen := map[bool]shaped{}
	ways(t, func(t *testing.T, cfg Config) {
		m := newManager(t, cfg)
		a := newPod(t)
		a.Annotations = map[string]string{ingressAnnotation: "10M", egressAnnotation: "8M"}
		result := mustAdd(t, m, a)
		if err := m.Check(context.Background(), a); err != nil {
			t.Error(err)
		}
		n, err := m.current("")
		if err != nil {
			t.Fatal(err)
		}
		conf, _ := runtimeConf(a)
		raw, err := m.libcni(n).GetNetworkListCachedResult(n.list, conf)
		if err != nil {
			t.Fatal(err)
		}
		s := shaped{Result: normal(t, result, a), Raw: normal(t, raw, a), Limits: limitsOf(t, result.HostInterface)}
		links, err := netlink.LinkList()
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range links {
			if strings.HasPrefix(link.Attrs().Name, "bwp") {
				s.Limits = append(s.Limits, limitsOf(t, link.Attrs().Name)...)
			}
		}
		seen[cfg.BuiltinPlugins] = s
		pod := openPlace(t, "pod", a.NetNS)
		pod.serve(t, 80)
		hostPlace(t).mustAsk(t, "tcp", netip.AddrPortFrom(result.Addresses[0].Addr(), 80).String())
		next, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(next.Close)
		if err := next.GC(context.Background(), nil); err != nil {
			t.Error(err)
		}
		checkNothing(t, next, cfg.StateDir)
	})
	if len(seen) == 2 {
		if len(seen[true].Limits) != 5 {
			t.Errorf("limits: %q", seen[true].Limits)
		}
		if diff := cmp.Diff(seen[false], seen[true]); diff != "" {
			t.Errorf("executed (-) and built in (+) differ:\n%s", diff)
		}
	}
}

// TestBadBandwidth: the pod is refused, and has nothing.
func TestBadBandwidth(t *testing.T) {
	rooted(t)
	m := newManager(t, testConfig(t))
	for _, rate := range []string{"", "-1", "1", "10X", "2P"} {
		a := newPod(t)
		a.Annotations = map[string]string{egressAnnotation: rate}
		if err := addError(m, a); err == nil || !strings.Contains(err.Error(), egressAnnotation) {
			t.Errorf("%q: got %v", rate, err)
		}
	}
	checkNothing(t, m, m.cfg.StateDir)
}
