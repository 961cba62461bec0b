package userdefined

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"

	"github.com/containerd/errdefs"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/network/netns"
)

// wireVLAN makes an endpoint of macvlan or ipvlan: a link below the parent that
// is born inside the pod. The result is as the bridge plugin's.
func (a *attaching) wireVLAN(ctx context.Context, conf []byte) ([]byte, error) {
	pod, err := netns.Open(a.p.NetNS)
	if err != nil {
		return nil, err
	}
	defer pod.Close()
	if err := a.m.ensureLink(&a.n); err != nil {
		return nil, err
	}
	parent, err := netlink.LinkByName(a.n.Link)
	if err != nil {
		return nil, fmt.Errorf("find parent %s: %w", a.n.Link, err)
	}
	raw, err := a.m.cfg.Plugins.Run(ctx, "host-local", a.call("ADD", a.p.NetNS, conf))
	if err != nil {
		return nil, err
	}
	var result current.Result
	if err := json.Unmarshal(raw, &result); err != nil {
		return nil, fmt.Errorf("addresses of network %s: %w", a.n.Name, err)
	}
	link, err := a.vlanLink(parent, pod)
	if err != nil {
		return nil, err
	}
	if err := netlink.LinkAdd(link); err != nil {
		return nil, fmt.Errorf("create %s %s below %s: %w", a.n.Driver, a.e.Interface, a.n.Link, err)
	}
	mac := ""
	if err := pod.Do(func() (err error) {
		mac, err = setUpLink(a.e.Interface, result.IPs)
		return err
	}); err != nil {
		return nil, err
	}
	result.CNIVersion = cniVersion
	result.Interfaces = []*current.Interface{{Name: a.e.Interface, Mac: mac, Sandbox: a.p.NetNS}}
	return json.Marshal(result)
}

// vlanLink is the link to make.
func (a *attaching) vlanLink(parent netlink.Link, pod *netns.Namespace) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.Namespace = a.e.Interface, parent.Attrs().Index, netlink.NsFd(pod.FD())
	mtu, err := a.n.mtu()
	if err != nil {
		return nil, err
	}
	attrs.MTU = mtu
	if a.n.Driver == IPvlan {
		if a.e.MAC != "" {
			return nil, worded(errdefs.ErrInvalidArgument, "ipvlan interfaces do not support custom mac address assignment")
		}
		return &netlink.IPVlan{LinkAttrs: attrs, Mode: ipvlanModes[a.n.Options[optionIPvlanMode]]}, nil
	}
	if a.e.MAC != "" {
		if attrs.HardwareAddr, err = net.ParseMAC(a.e.MAC); err != nil {
			return nil, worded(errdefs.ErrInvalidArgument, "invalid MAC address: %s", a.e.MAC)
		}
	}
	return &netlink.Macvlan{LinkAttrs: attrs, Mode: macvlanModes[a.n.Options[optionMode]]}, nil
}

// setUpLink gives a link of the calling thread's namespace its addresses and
// brings it up.
func setUpLink(name string, ips []*current.IPConfig) (mac string, err error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return "", fmt.Errorf("open netlink socket: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err != nil {
		return "", fmt.Errorf("find %s in the pod: %w", name, err)
	}
	for _, config := range ips {
		addr := &netlink.Addr{IPNet: &config.Address}
		if config.Address.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD // handed out but once
		}
		if err := h.AddrAdd(link, addr); err != nil {
			return "", fmt.Errorf("add address %s to %s: %w", config.Address.String(), name, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return "", fmt.Errorf("bring up %s in the pod: %w", name, err)
	}
	return link.Attrs().HardwareAddr.String(), nil
}

// unwireVLAN takes the link and the addresses away.
func (a *attaching) unwireVLAN(ctx context.Context, path string, conf []byte) error {
	if path != "" {
		pod, err := netns.Open(path)
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		if err == nil {
			err = pod.Do(func() error { return deleteLink(a.e.Interface, a.n.Driver) })
			pod.Close()
			if err != nil {
				return err
			}
		}
	}
	_, err := a.m.cfg.Plugins.Run(ctx, "host-local", a.call("DEL", path, conf))
	return err
}

// deleteLink deletes a link of the calling thread's namespace if it is of that
// kind. None is no error.
func deleteLink(name, kind string) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err == nil && link.Type() == kind {
		err = h.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete %s in the pod: %w", name, err)
	}
	return nil
}

// explain words what a person can do something about.
func (a *attaching) explain(err error) error {
	if !errdefs.IsResourceExhausted(err) {
		return err
	}
	if len(a.wanted()) > 0 {
		return worded(errdefs.ErrPermissionDenied, "Address already in use")
	}
	return worded(errdefs.ErrResourceExhausted, "no available addresses on this network's address pools: %s (%s)", a.n.Name, a.n.ID[:shortID])
}
