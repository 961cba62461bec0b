package builtin

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/utils"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/failpoint"
	"github.com/nodeagent/nodeagent/network/netns"
)

const (
	// shaperLatency is how long, in seconds, a packet may wait for its turn.
	shaperLatency = 0.025
	// The plugin's names of its links.
	shaperPrefix     = "bwp"
	shaperNameLength = 15
)

// limits are a pod's: rates in bits per second and bursts in bits, seen from
// the pod; a rate of zero is no limit.
type limits struct {
	IngressRate  uint64 `json:"ingressRate"`
	IngressBurst uint64 `json:"ingressBurst"`
	EgressRate   uint64 `json:"egressRate"`
	EgressBurst  uint64 `json:"egressBurst"`
}

// bandwidthConf is bandwidth's configuration: limits of its own go before
// those of the runtime.
type bandwidthConf struct {
	types.NetConf
	RuntimeConfig struct {
		Bandwidth *limits `json:"bandwidth"`
	} `json:"runtimeConfig"`
	*limits
}

func supportsBandwidth(raw []byte) error {
	_, _, err := parseBandwidth(raw)
	return err
}

// parseBandwidth returns the network's name and the limits, which may be none.
func parseBandwidth(raw []byte) (network string, l limits, err error) {
	var conf bandwidthConf
	if err := json.Unmarshal(raw, &conf); err != nil {
		return "", limits{}, fmt.Errorf("bandwidth: parse configuration: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	switch {
	case conf.limits != nil:
		l = *conf.limits
	case conf.RuntimeConfig.Bandwidth != nil:
		l = *conf.RuntimeConfig.Bandwidth
	}
	for _, pair := range [][2]uint64{{l.IngressRate, l.IngressBurst}, {l.EgressRate, l.EgressBurst}} {
		rate, burst := pair[0], pair[1]
		if (rate == 0) != (burst == 0) || rate != 0 && rate < 8 || burst/8 >= math.MaxUint32 {
			return "", limits{}, fmt.Errorf("bandwidth: rate %d with burst %d: both or none, a byte at least, and a burst below 4 GiB: %w", rate, burst, errdefs.ErrInvalidArgument)
		}
	}
	return conf.Name, l, nil
}

// shaperName is the plugin's name for the link that what a pod sends passes.
func shaperName(network, containerID string) string {
	return utils.MustFormatHashWithPrefix(shaperNameLength, shaperPrefix, network+containerID)
}

// bandwidthAdd shapes what the pod receives where the host sends it into the
// pod's link, and what it sends on a link of its own that it is led over.
func (p *Plugins) bandwidthAdd(ctx context.Context, c *Call) (*current.Result, error) {
	network, l, err := parseBandwidth(c.Conf)
	if err != nil {
		return nil, err
	}
	result, err := passOn(c)
	if err != nil || l == (limits{}) {
		return result, err
	}
	h, err := routeHandle()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	link, err := hostEnd(h, c, result)
	if err != nil {
		return nil, err
	}
	if l.IngressRate > 0 {
		if err := shape(h, link, l.IngressRate, l.IngressBurst); err != nil {
			return nil, err
		}
	}
	if l.EgressRate > 0 {
		shaper, err := divert(ctx, h, link, shaperName(network, c.ContainerID))
		if err != nil {
			return nil, err
		}
		if err := shape(h, shaper, l.EgressRate, l.EgressBurst); err != nil {
			return nil, err
		}
		result.Interfaces = append(result.Interfaces, &current.Interface{Name: shaper.Attrs().Name, Mac: shaper.Attrs().HardwareAddr.String()})
	}
	return result, nil
}

// bandwidthDel removes the pod's shaper; the rest goes with the pod's link.
func (p *Plugins) bandwidthDel(_ context.Context, c *Call) (*current.Result, error) {
	network, _, err := parseBandwidth(c.Conf)
	if err != nil {
		return nil, err
	}
	h, err := routeHandle()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	name := shaperName(network, c.ContainerID)
	link, err := h.LinkByName(name)
	if isLinkMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	if err := p.leaving.add(h, c.owner(), link); err != nil && !isLinkMissing(err) {
		return nil, err
	}
	return nil, nil
}

// bandwidthCheck compares the shapers with what they should be.
func (p *Plugins) bandwidthCheck(_ context.Context, c *Call) (*current.Result, error) {
	network, l, err := parseBandwidth(c.Conf)
	if err != nil || l == (limits{}) {
		return nil, err
	}
	result, err := passOn(c)
	if err != nil {
		return nil, err
	}
	h, err := routeHandle()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	link, err := hostEnd(h, c, result)
	if err == nil && l.IngressRate > 0 {
		err = checkShaper(h, link, l.IngressRate, l.IngressBurst)
	}
	if err == nil && l.EgressRate > 0 {
		if link, err = h.LinkByName(shaperName(network, c.ContainerID)); err == nil {
			err = checkShaper(h, link, l.EgressRate, l.EgressBurst)
		}
	}
	return nil, err
}

// hostEnd finds the host's end of the pod's veth pair, which must be in the
// result.
func hostEnd(h *netlink.Handle, c *Call, result *current.Result) (netlink.Link, error) {
	pod, err := netns.Open(c.NetNS)
	if err != nil {
		return nil, err
	}
	defer pod.Close()
	var peer int
	err = pod.Do(func() error {
		inside, err := routeHandle()
		if err != nil {
			return err
		}
		defer inside.Close()
		link, err := findVeth(inside, c.IfName)
		if err == nil && link == nil {
			err = fmt.Errorf("%s in the pod is no end of a veth pair: %w", c.IfName, errdefs.ErrFailedPrecondition)
		}
		if err == nil {
			peer = link.Attrs().ParentIndex
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	link, err := h.LinkByIndex(peer)
	if err != nil {
		return nil, fmt.Errorf("find the host's end of %s: %w", c.IfName, err)
	}
	for _, known := range result.Interfaces {
		if known.Sandbox == "" && known.Name == link.Attrs().Name {
			return link, nil
		}
	}
	return nil, fmt.Errorf("%s, the host's end of %s, is not in prevResult: %w", link.Attrs().Name, c.IfName, errdefs.ErrInvalidArgument)
}

// divert makes a link and leads over it all that comes in by another.
func divert(ctx context.Context, h *netlink.Handle, from netlink.Link, name string) (netlink.Link, error) {
	attrs := netlink.LinkAttrs{Name: name, MTU: from.Attrs().MTU, Flags: net.FlagUp}
	if err := h.LinkAdd(&netlink.Ifb{LinkAttrs: attrs}); err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	if err := failpoint.Inject(ctx, "network.bandwidth.link"); err != nil {
		return nil, err
	}
	to, err := h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	ingress := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: from.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS,
	}}
	if err := h.QdiscAdd(ingress); err != nil {
		return nil, fmt.Errorf("take hold of what comes by %s: %w", from.Attrs().Name, err)
	}
	err = h.FilterAdd(&netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: from.Attrs().Index, Parent: ingress.Handle, Priority: 1, Protocol: unix.ETH_P_ALL},
		ClassId:     netlink.MakeHandle(1, 1),
		RedirIndex:  to.Attrs().Index,
		Actions:     []netlink.Action{&netlink.MirredAction{MirredAction: netlink.TCA_EGRESS_REDIR, Ifindex: to.Attrs().Index}},
	})
	if err != nil {
		return nil, fmt.Errorf("lead what comes by %s over %s: %w", from.Attrs().Name, name, err)
	}
	return to, nil
}

// shaper is a token bucket filter for a rate and a burst, as the plugin's is. A
// burst of more than the time the kernel can be told of, some minutes, is one of
// that time: the plugin's is what its bits happen to say then, and may be too
// small for a packet.
func shaper(link netlink.Link, rate, burst uint64) *netlink.Tbf {
	bytes, bucket := float64(rate/8), float64(burst/8)
	fill := bucket * float64(netlink.TIME_UNITS_PER_SEC) / bytes
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       rate / 8,
		Limit:      atMost32(bytes*shaperLatency + bucket),
		Buffer:     atMost32(math.Trunc(fill) * netlink.TickInUsec()),
	}
}

func atMost32(n float64) uint32 { return uint32(min(n, math.MaxUint32)) }

func shape(h *netlink.Handle, link netlink.Link, rate, burst uint64) error {
	if err := h.QdiscAdd(shaper(link, rate, burst)); err != nil {
		return fmt.Errorf("limit what leaves by %s: %w", link.Attrs().Name, err)
	}
	return nil
}

func checkShaper(h *netlink.Handle, link netlink.Link, rate, burst uint64) error {
	want := shaper(link, rate, burst)
	found, err := netns.Dump(func() ([]netlink.Qdisc, error) { return h.QdiscList(link) })
	if err != nil {
		return fmt.Errorf("list limits of %s: %w", link.Attrs().Name, err)
	}
	for _, one := range found {
		have, ok := one.(*netlink.Tbf)
		if ok && have.Rate == want.Rate && have.Limit == want.Limit && have.Buffer == want.Buffer {
			return nil
		}
	}
	return fmt.Errorf("%s does not limit to %d bit/s: %w", link.Attrs().Name, rate, errdefs.ErrFailedPrecondition)
}
