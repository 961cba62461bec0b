package userdefined

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

func TestPlanRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		req  CreateRequest
		want string
	}{
		"no name":          {CreateRequest{}, "invalid network name"},
		"odd name":         {CreateRequest{Name: "a/b"}, "invalid network name"},
		"long name":        {CreateRequest{Name: strings.Repeat("a", 200)}, "invalid network name"},
		"predefined":       {CreateRequest{Name: "host"}, "operation is not permitted on predefined host network"},
		"driver":           {CreateRequest{Name: "n", Driver: "overlay"}, "could not find plugin overlay"},
		"no family":        {CreateRequest{Name: "n", NoIPv4: true}, "IPv4 or IPv6 must be enabled"},
		"host bits":        {subnets(Subnet{Prefix: prefix("10.0.0.5/24")}), "invalid subnet 10.0.0.5/24: it should be 10.0.0.0/24"},
		"tiny":             {subnets(Subnet{Prefix: prefix("10.0.0.0/31")}), "no network can have it"},
		"loopback":         {subnets(Subnet{Prefix: prefix("127.0.0.0/8")}), "no network can have it"},
		"range elsewhere":  {subnets(Subnet{Prefix: prefix("10.0.0.0/24"), Range: prefix("10.0.1.0/25")}), "invalid ip-range 10.0.1.0/25"},
		"wider range":      {subnets(Subnet{Prefix: prefix("10.0.0.0/24"), Range: prefix("10.0.0.0/16")}), "invalid ip-range"},
		"gateway outside":  {subnets(Subnet{Prefix: prefix("10.0.0.0/24"), Gateway: addr("10.0.1.1")}), "invalid gateway 10.0.1.1"},
		"gateway is last":  {subnets(Subnet{Prefix: prefix("10.0.0.0/24"), Gateway: addr("10.0.0.255")}), "invalid gateway"},
		"aux outside":      {subnets(Subnet{Prefix: prefix("10.0.0.0/24"), Auxiliary: map[string]netip.Addr{"x": addr("10.9.0.1")}}), "invalid auxiliary address"},
		"aux is gateway":   {subnets(Subnet{Prefix: prefix("10.0.0.0/24"), Gateway: addr("10.0.0.1"), Auxiliary: map[string]netip.Addr{"x": addr("10.0.0.1")}}), "is the gateway's"},
		"overlap":          {subnets(Subnet{Prefix: prefix("10.0.0.0/24")}, Subnet{Prefix: prefix("10.0.0.0/16")}), "multiple overlapping subnet"},
		"two of a family":  {subnets(Subnet{Prefix: prefix("10.0.0.0/24")}, Subnet{Prefix: prefix("10.1.0.0/24")}), "doesn't support multiple subnets"},
		"IPv4 is disabled": {CreateRequest{Name: "n", NoIPv4: true, IPv6: true, Subnets: []Subnet{{Prefix: prefix("10.0.0.0/24")}}}, "which is disabled"},
		"bad mtu":          {options(optionMTU, "12"), "invalid value"},
		"bad flag":         {options(optionICC, "maybe"), "invalid value"},
		"bad binding":      {options(optionHostIPv4, "::1"), "invalid value"},
		"bad bridge name":  {options(optionBridgeName, "a/../b"), "invalid value"},
		"long bridge name": {options(optionBridgeName, strings.Repeat("b", 16)), "invalid value"},
		"bad mode":         {CreateRequest{Name: "n", Driver: Macvlan, Options: map[string]string{optionMode: "odd"}}, "requested macvlan mode 'odd' is not valid"},
	} {
		if _, err := plan(test.req); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	n, err := plan(subnets(Subnet{Prefix: prefix("fd00:1::/64")}))
	if err != nil || !n.IPv6 || !n.IPv4 {
		t.Errorf("a subnet of IPv6 makes it an IPv6 network: %+v, %v", n, err)
	}
}

func subnets(list ...Subnet) CreateRequest { return CreateRequest{Name: "n", Subnets: list} }

func options(key, value string) CreateRequest {
	return CreateRequest{Name: "n", Options: map[string]string{key: value}}
}

func TestRanges(t *testing.T) {
	for name, test := range map[string]struct {
		subnet Subnet
		wanted string
		want   string
	}{
		"whole":   {Subnet{Prefix: prefix("10.0.0.0/24")}, "", "10.0.0.1-10.0.0.254"},
		"range":   {Subnet{Prefix: prefix("10.0.0.0/24"), Range: prefix("10.0.0.128/25")}, "", "10.0.0.128-10.0.0.254"},
		"first":   {Subnet{Prefix: prefix("10.0.0.0/24"), Range: prefix("10.0.0.0/25")}, "", "10.0.0.1-10.0.0.127"},
		"wanted":  {Subnet{Prefix: prefix("10.0.0.0/24"), Range: prefix("10.0.0.128/25")}, "10.0.0.9", "10.0.0.9-10.0.0.9"},
		"aux":     {Subnet{Prefix: prefix("10.0.0.0/29"), Auxiliary: map[string]netip.Addr{"a": addr("10.0.0.3"), "b": addr("10.0.0.6")}}, "", "10.0.0.1-10.0.0.2 10.0.0.4-10.0.0.5"},
		"nothing": {Subnet{Prefix: prefix("10.0.0.0/30"), Gateway: addr("10.0.0.1"), Auxiliary: map[string]netip.Addr{"a": addr("10.0.0.2"), "b": addr("10.0.0.1")}}, "", "10.0.0.1-10.0.0.1"},
		"IPv6":    {Subnet{Prefix: prefix("fd00::/126")}, "", "fd00::1-fd00::3"},
	} {
		var wanted netip.Addr
		if test.wanted != "" {
			wanted = addr(test.wanted)
		}
		var got []string
		for _, r := range test.subnet.ranges(wanted) {
			got = append(got, fmt.Sprintf("%s-%s", r[0], r[1]))
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestChooseGateway(t *testing.T) {
	for want, s := range map[string]Subnet{
		"10.0.0.1":   {Prefix: prefix("10.0.0.0/24")},
		"10.0.0.2":   {Prefix: prefix("10.0.0.0/24"), Auxiliary: map[string]netip.Addr{"a": addr("10.0.0.1")}},
		"10.0.0.128": {Prefix: prefix("10.0.0.0/24"), Range: prefix("10.0.0.128/25")},
		"fd00::1":    {Prefix: prefix("fd00::/64")},
	} {
		if s.chooseGateway(); s.Gateway.String() != want {
			t.Errorf("%s: %s", want, s.Gateway)
		}
	}
}

// route is one of the host's.
func route(dst, gateway string) netlink.Route {
	_, to, err := net.ParseCIDR(dst)
	if err != nil {
		panic(err)
	}
	return netlink.Route{Dst: to, Gw: net.ParseIP(gateway)}
}

func TestRefuseOverlaps(t *testing.T) {
	others := []*Network{{Name: "first", Subnets: []Subnet{{Prefix: prefix("10.1.0.0/16")}}}}
	routes := []netlink.Route{route("192.168.7.0/24", ""), route("172.16.0.0/12", "192.168.7.1")}
	for name, test := range map[string]struct {
		driver, subnet, want string
	}{
		"free":                  {Bridge, "10.2.0.0/24", ""},
		"of another network":    {Bridge, "10.1.7.0/24", "overlaps 10.1.0.0/16 of network first"},
		"wider than another's":  {Bridge, "10.0.0.0/8", "overlaps 10.1.0.0/16 of network first"},
		"the host's own":        {Bridge, "192.168.7.128/25", "subnet 192.168.7.128/25 overlaps 192.168.7.0/24, to which the host has a route"},
		"part of a wide route":  {Bridge, "172.20.0.0/16", ""},
		"all of a wide route":   {Bridge, "172.16.0.0/12", "to which the host has a route"},
		"a parent's":            {Macvlan, "192.168.7.0/24", ""},
		"a parent's, but taken": {Macvlan, "10.1.0.0/24", "overlaps 10.1.0.0/16 of network first"},
	} {
		err := (&Manager{}).refuse(&Network{Driver: test.driver}, Subnet{Prefix: prefix(test.subnet)}, others, routes)
		if (err == nil) != (test.want == "") || (err != nil && !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestChoose(t *testing.T) {
	got, ok := choose(candidates4(), []netip.Prefix{prefix("172.18.0.0/16")}, []netlink.Route{route("172.19.5.0/24", "")}, []netip.Addr{addr("172.20.0.53")})
	if !ok || got != prefix("172.21.0.0/16") {
		t.Errorf("chose %s", got)
	}
	if _, ok := choose(candidates4(), []netip.Prefix{prefix("0.0.0.0/0")}, nil, nil); ok {
		t.Error("chose one where all is taken")
	}
}

func FuzzSubnet(f *testing.F) {
	f.Add("10.0.0.0/24", "10.0.0.128/25", "10.0.0.1", "10.0.0.9", "10.0.0.5")
	f.Add("fd00::/64", "", "", "fd00::7", "")
	f.Fuzz(func(t *testing.T, subnet, within, gateway, aux, wanted string) {
		s := Subnet{Auxiliary: map[string]netip.Addr{}}
		s.Prefix, _ = netip.ParsePrefix(subnet)
		s.Range, _ = netip.ParsePrefix(within)
		s.Gateway, _ = netip.ParseAddr(gateway)
		if a, err := netip.ParseAddr(aux); err == nil {
			s.Auxiliary["a"] = a
		}
		s, err := checkSubnet(s)
		if err != nil {
			return
		}
		s.chooseGateway()
		want, _ := netip.ParseAddr(wanted)
		if want.IsValid() && !s.Prefix.Contains(want) {
			want = netip.Addr{}
		}
		for _, r := range s.ranges(want) {
			if !s.Prefix.Contains(r[0]) || !s.Prefix.Contains(r[1]) || r[1].Less(r[0]) {
				t.Errorf("%+v: range %s to %s", s, r[0], r[1])
			}
			for _, a := range s.Auxiliary {
				if !want.IsValid() && !a.Less(r[0]) && !r[1].Less(a) && r[0] != s.Gateway {
					t.Errorf("%+v: %s is taken", s, a)
				}
			}
		}
	})
}
