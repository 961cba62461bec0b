package userdefined

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/nodeagent/nodeagent/network/builtin"
	"github.com/nodeagent/nodeagent/network/netns"
)

// cniVersion is that of the configurations made here.
const cniVersion = "1.1.0"

// containerID names a pod to the plugins.
func containerID(podID string) string { return builtin.UserPrefix + podID }

// attaching is an endpoint and its network, as the plugins are told of it.
type attaching struct {
	m *Manager
	n Network
	p *member
	e *endpoint
}

// config is the configuration of the bridge plugin.
func (a *attaching) config() ([]byte, error) {
	mtu, err := a.n.mtu()
	if err != nil {
		return nil, err
	}
	conf := map[string]any{
		"cniVersion": cniVersion, "name": a.n.ID, "type": "bridge", "bridge": a.n.Link, "isGateway": true,
		"ipMasq": !a.n.Internal && a.n.flag(optionMasquerade, true), "hairpinMode": true, "mtu": mtu,
		"portIsolation": !a.n.flag(optionICC, true), "ipam": a.ipam(),
	}
	runtimeConfig := map[string]any{}
	if a.e.MAC != "" {
		runtimeConfig["mac"] = a.e.MAC
	}
	if wanted := a.wanted(); len(wanted) > 0 {
		runtimeConfig["ips"] = wanted
	}
	conf["runtimeConfig"] = runtimeConfig
	if a.e.Result != nil {
		conf["prevResult"] = a.e.Result
	}
	return json.Marshal(conf)
}

// wanted are the addresses asked for.
func (a *attaching) wanted() []string {
	var list []string
	for _, addr := range []netip.Addr{a.e.IPv4, a.e.IPv6} {
		if addr.IsValid() {
			list = append(list, addr.String())
		}
	}
	return list
}

// ipam is the configuration of host-local. An address that was asked for may
// be anywhere in its subnet.
func (a *attaching) ipam() map[string]any {
	var sets [][]map[string]string
	for _, s := range a.n.Subnets {
		wanted := a.e.IPv4
		if s.Prefix.Addr().Is6() {
			wanted = a.e.IPv6
		}
		var set []map[string]string
		for _, r := range s.ranges(wanted) {
			set = append(set, map[string]string{
				"subnet": s.Prefix.String(), "rangeStart": r[0].String(), "rangeEnd": r[1].String(), "gateway": s.Gateway.String(),
			})
		}
		sets = append(sets, set)
	}
	return map[string]any{"type": "host-local", "ranges": sets, "dataDir": a.m.ipamDir()}
}

// ranges are the runs of addresses that containers may have; with a wanted
// address that one alone.
func (s Subnet) ranges(wanted netip.Addr) [][2]netip.Addr {
	if wanted.IsValid() {
		return [][2]netip.Addr{{wanted, wanted}}
	}
	within := s.Prefix
	if s.Range.IsValid() {
		within = s.Range
	}
	first, last := within.Masked().Addr(), lastOf(within)
	if first == s.Prefix.Addr() {
		first = first.Next()
	}
	if last.Is4() && last == lastOf(s.Prefix) {
		last = last.Prev()
	}
	runs := [][2]netip.Addr{{first, last}}
	for _, aux := range s.Auxiliary {
		runs = cut(runs, aux)
	}
	if len(runs) == 0 {
		// None is left: the gateway's, which is never given away.
		return [][2]netip.Addr{{s.Gateway, s.Gateway}}
	}
	return runs
}

// cut takes an address out of runs.
func cut(runs [][2]netip.Addr, addr netip.Addr) [][2]netip.Addr {
	var out [][2]netip.Addr
	for _, r := range runs {
		if addr.Less(r[0]) || r[1].Less(addr) {
			out = append(out, r)
			continue
		}
		if r[0].Less(addr) {
			out = append(out, [2]netip.Addr{r[0], addr.Prev()})
		}
		if addr.Less(r[1]) {
			out = append(out, [2]netip.Addr{addr.Next(), r[1]})
		}
	}
	return out
}

// call is a call of the plugins; conf is the configuration, path that of the
// namespace, empty when it is gone.
func (a *attaching) call(command, path string, conf []byte) *builtin.Call {
	c := &builtin.Call{
		Command: command, ContainerID: containerID(a.p.PodID), NetNS: path, IfName: a.e.Interface, Conf: conf,
	}
	c.Delegate = func(ctx context.Context, plugin string) ([]byte, error) {
		return a.m.cfg.Plugins.Run(ctx, plugin, c)
	}
	return c
}

// wire makes the endpoint; what a failure leaves, unwire takes away.
func (a *attaching) wire(ctx context.Context) error {
	conf, err := a.config()
	if err != nil {
		return err
	}
	var raw []byte
	if a.n.Driver == Bridge {
		raw, err = a.m.cfg.Plugins.Run(ctx, "bridge", a.call("ADD", a.p.NetNS, conf))
	} else {
		raw, err = a.wireVLAN(ctx, conf)
	}
	if err != nil {
		return a.explain(err)
	}
	return a.adopt(raw)
}

// adopt takes what a plugin gave into the record.
func (a *attaching) adopt(raw []byte) error {
	var result current.Result
	if err := json.Unmarshal(raw, &result); err != nil {
		return fmt.Errorf("result of network %s: %w", a.n.Name, err)
	}
	a.e.Result = raw
	for _, link := range result.Interfaces {
		switch {
		case link.Name == a.e.Interface && link.Sandbox != "":
			a.e.HardwareAddr = link.Mac
		case link.Sandbox == "":
			a.e.HostInterface = link.Name // the bridge comes first
		}
	}
	for _, config := range result.IPs {
		ones, _ := config.Address.Mask.Size()
		addr, ok := netip.AddrFromSlice(config.Address.IP)
		if !ok {
			continue
		}
		gateway, _ := netip.AddrFromSlice(config.Gateway)
		prefix := netip.PrefixFrom(addr.Unmap(), ones)
		if prefix.Addr().Is4() {
			a.e.Addr4, a.e.Gateway4 = prefix, gateway.Unmap()
		} else {
			a.e.Addr6, a.e.Gateway6 = prefix, gateway
		}
	}
	if !a.n.routed() {
		// There is a gateway, but nothing behind it.
		a.e.Gateway4, a.e.Gateway6 = netip.Addr{}, netip.Addr{}
	}
	return nil
}

// unwire takes the endpoint away, as far as it was made, and waits until its
// links are gone.
func (a *attaching) unwire(ctx context.Context) error {
	conf, err := a.config()
	if err != nil {
		return err
	}
	path, err := netns.Living(a.p.NetNS)
	if err != nil {
		return err
	}
	if err := a.unpublish(ctx); err != nil {
		return err
	}
	if a.n.Driver == Bridge {
		if _, err = a.m.cfg.Plugins.Run(ctx, "bridge", a.call("DEL", path, conf)); err != nil {
			return err
		}
		return a.m.cfg.Plugins.Reap()
	}
	return a.unwireVLAN(ctx, path, conf)
}
