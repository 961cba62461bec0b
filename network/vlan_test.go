package network

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

// bridgeList is a configuration of bridge with options of its own, such as
// `"vlan": 100`, and addresses of a subnet.
func bridgeList(t testing.TB, name, subnet, options string) string {
	t.Helper()
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [
		{"type": "bridge", "bridge": "cnitest0", "isDefaultGateway": true, %s,
		 "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": %q}], [{"subnet": "fd77::/64"}]]}}]}`,
		name, options, filepath.Join(t.TempDir(), "addresses"), subnet)
}

// vlans lists the VLANs of the ports of bridges, in order, without names.
func vlans(t testing.TB) []string {
	t.Helper()
	found, err := netlink.BridgeVlanList()
	if err != nil {
		t.Fatal(err)
	}
	ports := []string{}
	for index, list := range found {
		link, err := netlink.LinkByIndex(int(index))
		if err != nil {
			t.Fatal(err)
		}
		text := link.Type()
		for _, one := range list {
			text += " " + one.String()
		}
		ports = append(ports, text)
	}
	slices.Sort(ports)
	return ports
}

// needVLANs skips a test where bridges know no VLANs. The lane with a virtual
// machine has a kernel whose bridges do.
func needVLANs(t *testing.T) {
	t.Helper()
	on := true
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "cnitestprobe"
	bridge := &netlink.Bridge{LinkAttrs: attrs, VlanFiltering: &on}
	if os.Getenv(inNamespaces) == "" {
		t.Skip("needs root")
	}
	if err := netlink.LinkAdd(bridge); err != nil {
		t.Skipf("the kernel's bridges know no VLANs: %v; run make test-vm", err)
	}
	if err := netlink.LinkDel(bridge); err != nil {
		t.Fatal(err)
	}
}

// TestVLANs: options of VLANs give the same ports, links, addresses and results
// in process and executed, and a second pod changes nothing.
func TestVLANs(t *testing.T) {
	needVLANs(t)
	compareBridges(t, map[string]string{
		"vlan":      `"vlan": 100`,
		"preserved": `"vlan": 100, "preserveDefaultVlan": true`,
		"trunk":     `"isGateway": false, "vlanTrunk": [{"minID": 20, "maxID": 22}, {"id": 30}, {"id": 21}]`,
		"both":      `"vlan": 100, "vlanTrunk": [{"id": 30}]`,
	})
}

// TestBridgeOptions is the same for options of ports and addresses.
func TestBridgeOptions(t *testing.T) {
	compareBridges(t, map[string]string{
		"isolated": `"portIsolation": true, "hairpinMode": true`,
		"promisc":  `"promiscMode": true, "mtu": 1400`,
		"dad":      `"enabledad": true`,
		"mac":      `"args": {"cni": {"mac": "02:00:5e:00:53:01"}}`,
	})
}

func compareBridges(t *testing.T, cases map[string]string) {
	for name, options := range cases {
		t.Run(name, func(t *testing.T) {
			seen := map[bool]any{}
			ways(t, func(t *testing.T, cfg Config) {
				t.Cleanup(func() { dropLinks("cnitest0.100") })
				writeConf(t, cfg, "05-first.conflist", bridgeList(t, "vlans", "10.77.0.0/24", options))
				m := newManager(t, cfg)
				if n, err := m.current(""); err != nil || cfg.BuiltinPlugins != n.inProcess() {
					t.Fatalf("in process: %v, %v", n.why, err)
				}
				a, b := newPod(t), newPod(t)
				result := mustAdd(t, m, a)
				mustAdd(t, m, b)
				// The plugin's own bridge changes its hardware address with VLANs,
				// which its CHECK then dislikes.
				if err := m.Check(context.Background(), a); err != nil && cfg.BuiltinPlugins {
					t.Error(err)
				}
				seen[cfg.BuiltinPlugins] = []any{look(t, m, a, result), vlans(t), addressesOf(t, "cnitest0.100"), addressesOf(t, "cnitest0")}
				mustDel(t, m, a)
				mustDel(t, m, b)
			})
			if diff := cmp.Diff(seen[false], seen[true]); diff != "" {
				t.Errorf("executed (-) and built in (+) differ:\n%s", diff)
			}
		})
	}
}

// addressesOf lists a link's addresses but that of its own; nil when there is
// no such link.
func addressesOf(t *testing.T, name string) []string {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil
	}
	list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	addrs := []string{fmt.Sprint("promiscuous ", link.Attrs().Promisc)}
	for _, addr := range list {
		if !addr.IP.IsLinkLocalUnicast() {
			addrs = append(addrs, addr.IPNet.String())
		}
	}
	return addrs
}

func dropLinks(names ...string) {
	for _, name := range names {
		if link, err := netlink.LinkByName(name); err == nil {
			_ = netlink.LinkDel(link)
		}
	}
}

// TestVLANsAreApart: pods of one VLAN talk to each other and to the host; one
// of another VLAN of the same bridge hears nothing of it.
func TestVLANsAreApart(t *testing.T) {
	needVLANs(t)
	ways(t, func(t *testing.T, cfg Config) {
		t.Cleanup(func() { dropLinks("cnitest0.100") })
		writeConf(t, cfg, "05-first.conflist", bridgeList(t, "one", "10.77.0.0/24", `"vlan": 100`))
		m := newManager(t, cfg)
		pods := []Attachment{newPod(t), newPod(t), newPod(t)}
		mustAdd(t, m, pods[0])
		mustAdd(t, m, pods[1])
		// An address of the same subnet, which the pod looks for on the bridge.
		apart := strings.ReplaceAll(bridgeList(t, "two", "10.77.0.0/24", `"vlan": 200`), `"isDefaultGateway": true, `, "")
		writeConf(t, cfg, "05-first.conflist", strings.ReplaceAll(apart, `{"subnet": "10.77.0.0/24"}`, `{"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.9"}`))
		mustAdd(t, m, pods[2])
		var places []place
		for i, pod := range pods {
			places = append(places, openPlace(t, fmt.Sprintf("pod %d", i), pod.NetNS))
		}
		places[1].serve(t, 80)
		host := hostPlace(t)
		host.serve(t, 7000)
		places[0].mustAsk(t, "tcp", "10.77.0.3:80")
		places[0].mustAsk(t, "tcp", "10.77.0.1:7000")
		host.mustAsk(t, "tcp", "10.77.0.3:80")
		places[2].mustNotAsk(t, "tcp", "10.77.0.3:80")
		for _, pod := range pods {
			mustDel(t, m, pod)
		}
	})
}
