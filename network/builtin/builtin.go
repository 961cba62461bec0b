// Package builtin carries out the reference CNI plugins bridge, host-local,
// portmap, bandwidth, firewall and loopback in process: the same configuration, results,
// interfaces, addresses, routes and sysctls as of version 1.9.1 of
// github.com/containernetworking/plugins, by netlink alone, with nothing
// executed. Differences, all of them on purpose:
//
//   - masquerading and published ports are in the agent's own nftables table
//     (package nat), whatever ipMasqBackend and backend say;
//   - a host port that another pod of the agent has is refused;
//   - the host's end of a veth pair has a name derived from the pod's ID, so
//     that it is found again without any record;
//   - a burst that takes a slow link longer than the kernel can be told of is
//     that long, where the plugin's number overflows;
//   - before IPv6 forwarding is switched on, interfaces whose routes come
//     from router advertisements are made to keep accepting them.
//
// Supports tells which configurations are carried out; the caller executes the
// plugin for all others.
package builtin

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/nodeagent/nodeagent/network/nat"
)

// Restore is a command that CNI does not have: with the input of CHECK, a
// plugin writes the rules of the attachment that are missing.
const Restore = "RESTORE"

// Call is one call of a plugin, as CNI gives it in environment and stdin.
type Call struct {
	// Command is ADD, DEL, CHECK, STATUS, GC, or Restore.
	Command     string
	ContainerID string
	// NetNS is the path of the pod's namespace; empty when it is gone.
	NetNS  string
	IfName string
	// Args is CNI_ARGS.
	Args string
	// Conf is the plugin's configuration, with prevResult and runtimeConfig.
	Conf []byte
	// Delegate runs the IPAM plugin of that type with the same call.
	Delegate func(ctx context.Context, plugin string) ([]byte, error)
}

// owner names the attachment in the nftables table.
func (c *Call) owner() string { return Owner(c.ContainerID, c.IfName) }

// Owner is how an attachment is named in the nftables table.
func Owner(containerID, ifName string) string { return containerID + "/" + ifName }

// Plugins carries out calls. Its methods may be called side by side.
type Plugins struct {
	table *nat.Table
	pools pools
	// leaving are links that DEL has left to Reap.
	leaving *leaving

	// Neighbours lists what others than the caller of GC have of a network, who
	// may take it at any time; nil when there are none. It is called while
	// nobody can take or give back an address.
	Neighbours func(network string) ([]types.GCAttachment, error)

	// bridgeMu keeps two pods from making the same bridge.
	bridgeMu sync.Mutex
}

// New returns plugins that keep their rules in table, in the calling thread's
// network namespace. There is nothing to close; whoever calls DEL owes a call of
// Reap.
func New(table *nat.Table) *Plugins {
	return &Plugins{table: table, leaving: newLeaving()}
}

// plugin is one of the plugins.
type plugin struct {
	// supports returns why a configuration is not carried out, nil when it is.
	supports func(conf []byte) error
	commands map[string]func(*Plugins, context.Context, *Call) (*current.Result, error)
}

func none(*Plugins, context.Context, *Call) (*current.Result, error) { return nil, nil }

var known = map[string]plugin{
	"bridge": {supportsBridge, map[string]func(*Plugins, context.Context, *Call) (*current.Result, error){
		"ADD": (*Plugins).bridgeAdd, "DEL": (*Plugins).bridgeDel, "CHECK": (*Plugins).bridgeCheck, Restore: (*Plugins).bridgeRestore, "STATUS": none, "GC": (*Plugins).bridgeGC}},
	"host-local": {supportsHostLocal, map[string]func(*Plugins, context.Context, *Call) (*current.Result, error){
		"ADD": (*Plugins).hostLocalAdd, "DEL": (*Plugins).hostLocalDel, "CHECK": (*Plugins).hostLocalCheck, Restore: none, "STATUS": none, "GC": (*Plugins).hostLocalGC}},
	"portmap": {supportsPortmap, map[string]func(*Plugins, context.Context, *Call) (*current.Result, error){
		"ADD": (*Plugins).portmapAdd, "DEL": (*Plugins).portmapDel, "CHECK": (*Plugins).portmapCheck, Restore: (*Plugins).portmapRestore, "STATUS": none, "GC": none}},
	"bandwidth": {supportsBandwidth, map[string]func(*Plugins, context.Context, *Call) (*current.Result, error){
		"ADD": (*Plugins).bandwidthAdd, "DEL": (*Plugins).bandwidthDel, "CHECK": (*Plugins).bandwidthCheck, Restore: none, "STATUS": none, "GC": none}},
	"firewall": {supportsFirewall, map[string]func(*Plugins, context.Context, *Call) (*current.Result, error){
		"ADD": (*Plugins).firewallAdd, "DEL": (*Plugins).firewallDel, "CHECK": (*Plugins).firewallCheck, Restore: (*Plugins).firewallRestore, "STATUS": none, "GC": none}},
	"loopback": {supportsAny, map[string]func(*Plugins, context.Context, *Call) (*current.Result, error){
		"ADD": loopbackAdd, "DEL": none, "CHECK": none, Restore: none, "STATUS": none, "GC": none}},
}

// Supports returns nil when calls of the plugin name with configuration conf
// are carried out in process. Otherwise the error is of kind
// ErrInvalidArgument when conf is malformed, ErrNotImplemented when the plugin,
// or something conf asks of it, is left to the program.
func Supports(name string, conf []byte) error {
	p, ok := known[name]
	if !ok {
		return fmt.Errorf("plugin %q is not built in: %w", name, errdefs.ErrNotImplemented)
	}
	return p.supports(conf)
}

func supportsAny([]byte) error { return nil }

// Run carries out a call of the plugin name and returns what the plugin would
// print.
func (p *Plugins) Run(ctx context.Context, name string, call *Call) ([]byte, error) {
	run, ok := known[name].commands[call.Command]
	if !ok {
		return nil, fmt.Errorf("plugin %s: command %q: %w", name, call.Command, errdefs.ErrNotImplemented)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	result, err := run(p, ctx, call)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if result == nil || call.Command != "ADD" {
		return nil, nil
	}
	var head struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err := json.Unmarshal(call.Conf, &head); err != nil {
		return nil, fmt.Errorf("%s: parse configuration: %w", name, err)
	}
	printed, err := result.GetAsVersion(head.CNIVersion)
	if err != nil {
		return nil, fmt.Errorf("%s: result as of version %q: %w", name, head.CNIVersion, err)
	}
	return json.Marshal(printed)
}

// UserPrefix begins the container IDs, and so the owners, that package
// userdefined looks after.
const UserPrefix = "user-"

// Sweep takes away the rules of all attachments that keep does not name by
// Owner, but for those with UserPrefix.
func (p *Plugins) Sweep(keep map[string]bool) error {
	for _, owner := range p.table.Owners() {
		if keep[owner] || strings.HasPrefix(owner, UserPrefix) {
			continue
		}
		if err := p.withdraw(owner); err != nil {
			return err
		}
	}
	return p.table.SweepAccepted(keep)
}

func (p *Plugins) withdraw(owner string) error {
	if err := p.table.Unpublish(owner); err != nil {
		return err
	}
	return p.table.Unmasquerade(owner)
}

// previous reads prevResult; nil when there is none.
func previous(conf []byte) (*current.Result, error) {
	var head types.NetConf
	if err := json.Unmarshal(conf, &head); err != nil {
		return nil, fmt.Errorf("parse configuration: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if head.RawPrevResult == nil {
		return nil, nil
	}
	raw, err := json.Marshal(head.RawPrevResult)
	if err != nil {
		return nil, fmt.Errorf("parse prevResult: %w", err)
	}
	return parseResult(raw, head.CNIVersion)
}

// parseResult reads what a plugin printed, of version when it names none.
func parseResult(raw []byte, version string) (*current.Result, error) {
	var head struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, fmt.Errorf("parse result: %w", err)
	}
	if head.CNIVersion != "" {
		version = head.CNIVersion
	}
	result, err := create.Create(version, raw)
	if err != nil {
		return nil, fmt.Errorf("parse result: %w", err)
	}
	return current.NewResultFromResult(result)
}

// passOn is what came before a plugin that changes nothing of it.
func passOn(c *Call) (*current.Result, error) {
	result, err := previous(c.Conf)
	if err == nil && result == nil {
		err = fmt.Errorf("must come after another plugin: %w", errdefs.ErrInvalidArgument)
	}
	return result, err
}
