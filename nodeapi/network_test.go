package nodeapi

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/network/dns"
	"github.com/nodeagent/nodeagent/network/userdefined"
	"google.golang.org/protobuf/proto"
)

// fakeNetworks has the network "net", and notes who joins and leaves.
type fakeNetworks struct {
	names     userdefined.NamesOf
	endpoints map[string][]userdefined.Endpoint
	onNode    map[string]bool
	calls     []string
}

var testNet = userdefined.Network{
	ID: strings.Repeat("5", 64), Name: "net", Driver: userdefined.Bridge, State: userdefined.Ready, IPv4: true,
	Subnets: []userdefined.Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/24"), Gateway: netip.MustParseAddr("10.9.0.1")}},
}

type notFound string

func (n notFound) Error() string             { return "network " + string(n) + " not found" }
func (n notFound) Words() (string, error)    { return n.Error(), errdefs.ErrNotFound }
func (n notFound) Unwrap() error             { return errdefs.ErrNotFound }
func (f *fakeNetworks) note(words ...string) { f.calls = append(f.calls, strings.Join(words, " ")) }

func (f *fakeNetworks) Networks() []userdefined.Network { return []userdefined.Network{testNet} }

func (f *fakeNetworks) Find(name string) (userdefined.Network, error) {
	if name == testNet.Name || name == testNet.ID {
		return testNet, nil
	}
	return userdefined.Network{}, notFound(name)
}

func (f *fakeNetworks) Create(_ context.Context, req userdefined.CreateRequest) (userdefined.Network, error) {
	f.note("create", req.Name)
	return userdefined.Network{ID: "made", Name: req.Name}, nil
}

func (f *fakeNetworks) Remove(_ context.Context, name string) (userdefined.Network, error) {
	f.note("remove", name)
	return f.Find(name)
}

func (f *fakeNetworks) Connect(_ context.Context, pod userdefined.Pod, spec network.EndpointSpec) error {
	f.note("connect", spec.Network)
	if f.endpoints == nil {
		f.endpoints, f.onNode = map[string][]userdefined.Endpoint{}, map[string]bool{}
	}
	if _, there := f.endpoints[pod.ID]; !there {
		f.onNode[pod.ID] = pod.OnNode
	}
	f.endpoints[pod.ID] = append(f.endpoints[pod.ID], userdefined.Endpoint{
		EndpointSpec: network.EndpointSpec{Network: testNet.ID}, Name: testNet.Name, Addr4: netip.MustParsePrefix("10.9.0.7/24"),
	})
	return nil
}

func (f *fakeNetworks) Disconnect(_ context.Context, podID, name string) error {
	f.note("disconnect", name)
	if len(f.endpoints[podID]) == 0 {
		return notFound(name)
	}
	f.endpoints[podID] = nil
	return nil
}

func (f *fakeNetworks) ConnectNode(context.Context, userdefined.Pod, network.Attachment) error {
	f.note("connect node")
	return nil
}

func (f *fakeNetworks) DisconnectNode(context.Context, userdefined.Pod, network.Attachment) error {
	f.note("disconnect node")
	return nil
}

func (f *fakeNetworks) Endpoints(podID string) ([]userdefined.Endpoint, bool, bool) {
	list, member := f.endpoints[podID]
	return list, member, f.onNode[podID]
}

func (f *fakeNetworks) NodeInterface(string) string              { return "eth0" }
func (f *fakeNetworks) Members(string) []string                  { return nil }
func (f *fakeNetworks) CheckNetworks(string) error               { return nil }
func (f *fakeNetworks) Serve(n userdefined.NamesOf)              { f.names = n }
func (f *fakeNetworks) CheckEndpoint(network.EndpointSpec) error { return nil }

func TestPlanNetworks(t *testing.T) {
	n := newNode(t)
	s := n.server
	other := n.create("other", box())
	for name, test := range map[string]struct {
		net  *nodev1.Network
		host string
		// mode is what becomes of it, want the error.
		mode, want string
	}{
		"bridge":       {net: &nodev1.Network{Mode: "bridge"}, mode: "bridge"},
		"none":         {net: &nodev1.Network{Mode: "none"}, mode: "none"},
		"a network":    {net: &nodev1.Network{Mode: "net"}, mode: "net"},
		"by ID":        {net: &nodev1.Network{Mode: testNet.ID}, mode: "net"},
		"unknown":      {net: &nodev1.Network{Mode: "nope"}, want: "network nope not found"},
		"shared":       {net: &nodev1.Network{Mode: "container:other"}, mode: "container:" + other},
		"shared, gone": {net: &nodev1.Network{Mode: "container:nope"}, want: "No such container: nope"},
		"shared, with a host name": {
			net: &nodev1.Network{Mode: "container:other"}, host: "x", want: "conflicting options: hostname and the network mode",
		},
		"shared, with ports": {
			net:  &nodev1.Network{Mode: "container:other", Ports: []*nodev1.Port{{ContainerPort: 80}}},
			want: "conflicting options: port publishing and the container type network mode",
		},
		"address on bridge": {
			net:  &nodev1.Network{Mode: "bridge", Endpoints: []*nodev1.EndpointSpec{{Network: "bridge", Ipv4: "10.0.0.1"}}},
			want: "user specified IP address is supported on user defined networks only",
		},
		"alias on bridge": {
			net:  &nodev1.Network{Mode: "bridge", Endpoints: []*nodev1.EndpointSpec{{Network: "bridge", Aliases: []string{"a"}}}},
			want: "network-scoped alias is supported only for containers in user defined networks",
		},
		"host and another": {
			net:  &nodev1.Network{Mode: "host", Endpoints: []*nodev1.EndpointSpec{{Network: "host"}, {Network: "net"}}},
			want: "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
		},
		"twice": {
			net:  &nodev1.Network{Mode: "net", Endpoints: []*nodev1.EndpointSpec{{Network: "net"}, {Network: testNet.ID}}},
			want: `network "net" is specified multiple times`,
		},
		"bad address": {
			net:  &nodev1.Network{Mode: "net", Endpoints: []*nodev1.EndpointSpec{{Network: "net", Ipv4: "fd00::1"}}},
			want: "invalid endpoint settings: invalid IPv4 address: fd00::1",
		},
		"bad hardware address": {
			net:  &nodev1.Network{Mode: "net", Endpoints: []*nodev1.EndpointSpec{{Network: "net", Mac: "01:00:00:00:00:01"}}},
			want: "invalid MAC address: 01:00:00:00:00:01",
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec := &nodev1.ContainerSpec{Network: proto.CloneOf(test.net), Hostname: test.host}
			_, err := s.planNetworks(spec)
			if test.want != "" {
				if err == nil || err.Error() != test.want {
					t.Fatalf("got %v, want %q", err, test.want)
				}
				return
			}
			if err != nil || spec.Network.Mode != test.mode {
				t.Errorf("mode %q: %v", spec.Network.Mode, err)
			}
		})
	}
}

func TestResolvConf(t *testing.T) {
	host := dns.ParseResolvConf([]byte("nameserver 192.0.2.1\nnameserver nonsense\nsearch example.org\noptions timeout:1\n"))
	for name, test := range map[string]struct {
		net    *nodev1.Network
		people bool
		want   string
	}{
		"node's":       {&nodev1.Network{}, false, "nameserver 192.0.2.1\nsearch example.org\noptions timeout:1\n"},
		"person's":     {&nodev1.Network{Dns: []string{"198.51.100.1"}, DnsSearch: []string{"a", "b"}}, false, "nameserver 198.51.100.1\nsearch a b\noptions timeout:1\n"},
		"no search":    {&nodev1.Network{DnsSearch: []string{"."}}, false, "nameserver 192.0.2.1\noptions timeout:1\n"},
		"on a network": {&nodev1.Network{Dns: []string{"198.51.100.1"}}, true, "nameserver 127.0.0.11\nsearch example.org\noptions timeout:1 ndots:0\n"},
		"own ndots":    {&nodev1.Network{DnsOptions: []string{"ndots:2"}}, true, "nameserver 127.0.0.11\nsearch example.org\noptions ndots:2\n"},
	} {
		if got := string(resolvConfFor(&nodev1.ContainerSpec{Network: test.net}, test.people, host)); got != test.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestReplaceHosts(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	content := "127.0.0.1\tlocalhost\n10.0.0.1\tbox\n10.9.9.9\tmine\n"
	want := "127.0.0.1\tlocalhost\n10.9.9.9\tmine\n10.0.0.2\tbox\n"
	if got := string(replaceHosts([]byte(content), []netip.Addr{a}, []netip.Addr{b}, "box")); got != want {
		t.Errorf("got %q", got)
	}
	if got := string(replaceHosts([]byte(content), []netip.Addr{a}, []netip.Addr{a}, "box")); got != content {
		t.Errorf("nothing changed, and got %q", got)
	}
}

// Joining and leaving is told to the networks, and refused where it cannot be.
func TestConnect(t *testing.T) {
	n := newNode(t)
	s := n.server
	id := n.create("box", box())
	hosted := box()
	hosted.Network = &nodev1.Network{Mode: "host"}
	n.create("hosted", hosted)
	rpc := &peopleNetworks{Server: s}
	connect := func(network, container string) error {
		_, err := rpc.Connect(t.Context(), &nodev1.ConnectNetworkRequest{Container: container, Endpoint: &nodev1.EndpointSpec{Network: network}})
		return err
	}
	if err := connect("net", "box"); err != nil {
		t.Fatal(err)
	}
	c, _ := s.find(id)
	pod, _ := s.sandboxes.Pod(c.PodID)
	hosts, err := readHosts(s.files.path(podKey(pod), hostsName))
	if err != nil || !strings.Contains(string(hosts), "10.9.0.7\t"+pod.Config.GetHostname()+"\n") {
		t.Errorf("hosts: %v: %s", err, hosts)
	}
	for _, test := range []struct{ network, container, want string }{
		{"nope", "box", "network nope not found"},
		{"net", "nobody", "No such container: nobody"},
		{"net", "hosted", "container sharing network namespace with another container or host cannot be connected to any other network"},
		{"none", "box", "container cannot be connected to multiple networks with one of the networks in private (none) mode"},
		{"host", "box", "container cannot be disconnected from host network or connected to host network"},
	} {
		if err := connect(test.network, test.container); err == nil || err.Error() != test.want {
			t.Errorf("connect %s %s: %v", test.network, test.container, err)
		}
	}
	leave := func(network string) error {
		_, err := rpc.Disconnect(t.Context(), &nodev1.DisconnectNetworkRequest{Container: "box", Network: network})
		return err
	}
	if err := leave("net"); err != nil {
		t.Error(err)
	}
	if err := leave("net"); err == nil || err.Error() != "container "+id+" is not connected to network net" {
		t.Errorf("leave twice: %v", err)
	}
	if _, err := rpc.Remove(t.Context(), &nodev1.RemoveNetworkRequest{Network: "bridge"}); err == nil || err.Error() != "bridge is a pre-defined network and cannot be removed" {
		t.Errorf("remove bridge: %v", err)
	}
	if want := []string{"connect net", "disconnect net", "disconnect net"}; !slices.Equal(n.networks.calls, want) {
		t.Errorf("calls: %v", n.networks.calls)
	}
	list, err := rpc.List(t.Context(), &nodev1.ListNetworksRequest{})
	var names []string
	for _, n := range list.GetNetworks() {
		names = append(names, n.GetName())
	}
	if err != nil || !slices.Equal(names, []string{"bridge", "host", "net", "none"}) {
		t.Errorf("list: %v: %v", err, names)
	}
}
