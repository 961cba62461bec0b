package userdefined

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"strconv"
	"time"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/undo"
	"github.com/nodeagent/nodeagent/network"
)

// namePattern is docker's.
var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// maxName bounds a network's name.
const maxName = 128

// linkPattern is what an interface may be called here.
var linkPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}$`)

// CreateRequest asks for a network.
type CreateRequest struct {
	Name string
	// Driver is one of the drivers; empty means Bridge.
	Driver     string
	Internal   bool
	Attachable bool
	NoIPv4     bool
	IPv6       bool
	// Subnets may lack what is to be chosen: gateways, or a subnet of a
	// family. Without any, subnets are chosen.
	Subnets []Subnet
	Options map[string]string
	Labels  map[string]string
}

// Create makes a network. A nil error means that it is there, with its bridge
// where it has one, and that it will be after a reboot.
func (m *Manager) Create(ctx context.Context, req CreateRequest) (Network, error) {
	n, err := plan(req)
	if err != nil {
		return Network{}, err
	}
	select {
	case m.making <- struct{}{}:
		defer func() { <-m.making }()
	case <-ctx.Done():
		return Network{}, fmt.Errorf("create network %s: another one is being made: %w", req.Name, ctx.Err())
	}
	defer network.ClaimSubnets()()
	n.ID, n.CreatedAt = m.newID(), time.Now().UTC()
	if err := m.place(&n); err != nil {
		return Network{}, err
	}
	err = undo.Sequence{Name: "usernet.create", Steps: []undo.Step{
		{
			Name: "intent", Plain: true,
			Do: func(context.Context) error { return m.put(n) },
			Undo: func(context.Context) error {
				if err := m.removeLink(n); err != nil {
					return err // the record stays, and the next start tries again
				}
				return m.drop(n)
			},
		},
		{Name: "link", Plain: true, Do: func(context.Context) error { return m.ensureLink(&n) }},
		{
			Name: "record", Plain: true,
			Do: func(context.Context) error {
				n.State = Ready
				return m.put(n)
			},
		},
	}}.Run(ctx)
	if err != nil {
		return Network{}, err
	}
	return n, nil
}

// plan checks a request as far as it can be checked by itself.
func plan(req CreateRequest) (Network, error) {
	n := Network{
		Name: req.Name, Driver: req.Driver, State: Making, Internal: req.Internal, Attachable: req.Attachable,
		IPv4: !req.NoIPv4, IPv6: req.IPv6, Options: maps.Clone(req.Options), Labels: maps.Clone(req.Labels),
	}
	if n.Driver == "" {
		n.Driver = Bridge
	}
	switch {
	case !namePattern.MatchString(n.Name) || len(n.Name) > maxName:
		return n, worded(errdefs.ErrInvalidArgument, "invalid network name %q: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", n.Name)
	case Predefined(n.Name):
		return n, worded(errdefs.ErrPermissionDenied, "operation is not permitted on predefined %s network ", n.Name)
	case n.Driver != Bridge && n.Driver != Macvlan && n.Driver != IPvlan:
		return n, worded(errdefs.ErrNotFound, "could not find plugin %s in v1 plugin registry: plugin not found", n.Driver)
	case !n.IPv4 && !n.IPv6:
		return n, worded(errdefs.ErrInvalidArgument, "IPv4 or IPv6 must be enabled")
	}
	if err := checkOptions(&n); err != nil {
		return n, err
	}
	for _, s := range req.Subnets {
		checked, err := checkSubnet(s)
		if err != nil {
			return n, err
		}
		n.Subnets = append(n.Subnets, checked)
		n.IPv6 = n.IPv6 || checked.Prefix.Addr().Is6()
	}
	return n, checkFamilies(&n)
}

// Predefined says whether a name is of a network that is always there.
func Predefined(name string) bool { return name == "bridge" || name == "host" || name == "none" }

// checkOptions refuses values that would be found wrong later.
func checkOptions(n *Network) error {
	invalid := func(option string) error {
		return worded(errdefs.ErrInvalidArgument, "invalid value %q of network option %s", n.Options[option], option)
	}
	for _, option := range []string{optionICC, optionMasquerade} {
		if text, ok := n.Options[option]; ok {
			value, err := strconv.ParseBool(text)
			if err != nil {
				return invalid(option)
			}
			n.Options[option] = strconv.FormatBool(value)
		}
	}
	if text, ok := n.Options[optionMTU]; ok {
		if mtu, err := strconv.Atoi(text); err != nil || mtu < 68 || mtu > 65535 {
			return invalid(optionMTU)
		}
	}
	for _, option := range []string{optionHostIPv4, optionHostIPv6} {
		if text, ok := n.Options[option]; ok {
			if addr, err := netip.ParseAddr(text); err != nil || addr.Is4() != (option == optionHostIPv4) {
				return invalid(option)
			}
		}
	}
	for _, option := range []string{optionBridgeName, optionParent} {
		if text, ok := n.Options[option]; ok && !linkPattern.MatchString(text) {
			return invalid(option)
		}
	}
	if _, ok := macvlanModes[n.Options[optionMode]]; !ok {
		return worded(errdefs.ErrInvalidArgument, "requested macvlan mode '%s' is not valid, 'bridge' mode is the macvlan driver default", n.Options[optionMode])
	}
	if _, ok := ipvlanModes[n.Options[optionIPvlanMode]]; !ok {
		return worded(errdefs.ErrInvalidArgument, "requested ipvlan mode '%s' is not valid, 'l2' mode is the ipvlan driver default", n.Options[optionIPvlanMode])
	}
	return nil
}

// place settles what depends on what else there is: names, links and subnets.
func (m *Manager) place(n *Network) error {
	m.mu.RLock()
	var others []*Network
	for _, o := range m.networks {
		others = append(others, o)
	}
	m.mu.RUnlock()
	for _, o := range others {
		if o.Name == n.Name {
			return worded(errdefs.ErrAlreadyExists, "network with name %s already exists", n.Name)
		}
	}
	if err := nameLink(n, others); err != nil {
		return err
	}
	return m.chooseSubnets(n, others)
}

// shortID is how much of an ID becomes part of a link's name.
const shortID = 12

// nameLink decides on the bridge or the parent.
func nameLink(n *Network, others []*Network) error {
	switch name := n.Options[optionParent]; {
	case n.Driver == Bridge:
		n.Link, n.OwnLink = n.Options[optionBridgeName], true
		if n.Link == "" {
			n.Link = "br-" + n.ID[:shortID]
		}
	case name != "":
		n.Link = name
		n.OwnLink = isVLAN(name) && !linkExists(name)
	default:
		// Without a parent the network is one of this machine alone.
		n.Link, n.OwnLink, n.Internal = dummyPrefix(n.Driver)+n.ID[:shortID], true, true
	}
	for _, o := range others {
		if o.Link == n.Link && (n.Driver == Bridge || o.Driver != n.Driver) {
			return worded(errdefs.ErrAlreadyExists, "network %s is already using parent interface %s", o.Name, n.Link)
		}
	}
	if n.Driver == Bridge && linkExists(n.Link) {
		if !isBridge(n.Link) {
			return worded(errdefs.ErrInvalidArgument, "cannot create network %s: interface %s is there already, and is no bridge", n.Name, n.Link)
		}
		n.OwnLink = false
	}
	return nil
}
