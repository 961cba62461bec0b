package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/nodeagent/nodeagent/sandbox"
)

// supervisorTimeout is how long it may take to answer: less than a check.
const supervisorTimeout = checkTimeout / 2

// supervisor looks whether it answers.
func (h Host) supervisor(ctx context.Context, r *report) {
	if h.Supervisor == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, supervisorTimeout)
	defer cancel()
	info, err := h.Supervisor.Info(ctx)
	if err != nil {
		r.add(Problem, "tail "+filepath.Join(h.AgentState, "supervisor.log")+"; kill -9 $(pgrep -x nodesupervisor), upon which nodeagent starts another and containers go on",
			"the supervisor does not answer, so no container can be started or stopped: %v", err)
		return
	}
	r.ok("PID %d, version %s", info.PID, info.Version)
}

// network looks whether pods can be wired, and at configurations that are
// wrong.
func (h Host) network(ctx context.Context, r *report) {
	if h.Network == nil {
		return
	}
	if err := h.Network.Status(ctx); err != nil {
		r.add(Problem, "ls -l "+h.ConfDir+", and mend or remove what is wrong there", "pods get no network: %v", err)
	}
	info := h.Network.Info()
	if f := info.Failed; f != nil && len(r.findings) == 0 {
		r.add(Warning, "nodectl why "+f.PodID[:min(len(f.PodID), 12)], "the last pod that was to get a network, %s ago, did not: %s", strings.ToLower(units.HumanDuration(time.Since(f.At))), f.Text)
	}
	for _, problem := range info.Problems {
		remedy := "mend or remove the file"
		if !strings.HasPrefix(problem, "/") {
			remedy = "nft list ruleset, and take out what drops pods' packets"
		}
		r.add(Warning, remedy, "%s", problem)
	}
	switch {
	case len(r.findings) > 0:
	case info.File == "":
		r.ok("the embedded network, since there is no configuration in %s", h.ConfDir)
	default:
		r.ok("%s, of %s", info.Network, info.File)
	}
}

// forwarding looks whether packets go from pods to elsewhere.
func (h Host) forwarding(_ context.Context, r *report) {
	const file = "/proc/sys/net/ipv4/ip_forward"
	if n, ok := h.number(file); ok && n == 0 {
		f := r.add(Warning, "sysctl -w net.ipv4.ip_forward=1", "the kernel does not forward IPv4 packets: pods reach nothing beyond this machine")
		f.Fix = h.write(file, "1")
	}
	const file6 = "/proc/sys/net/ipv6/conf/all/forwarding"
	if n, ok := h.number(file6); ok && n == 0 {
		r.add(Note, "sysctl -w net.ipv6.conf.all.forwarding=1", "the kernel does not forward IPv6 packets, which matters to pods with IPv6 addresses")
	}
	if len(r.findings) == 0 {
		r.ok("on")
	}
}

// bridged looks at traffic between pods of one bridge, which services' rules
// see only with br_netfilter. It matters where kube-proxy runs.
func (h Host) bridged(_ context.Context, r *report) {
	const file = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	n, ok := h.number(file)
	switch {
	case !ok:
		f := r.add(Note, "modprobe br_netfilter", "br_netfilter is not loaded: with kube-proxy, a pod does not reach a service whose other end is on this machine")
		f.Fix = h.modprobe("br_netfilter")
	case n == 0:
		f := r.add(Note, "sysctl -w net.bridge.bridge-nf-call-iptables=1", "bridged packets do not pass iptables: with kube-proxy, a pod does not reach a service whose other end is on this machine")
		f.Fix = h.write(file, "1")
	default:
		r.ok("passes iptables")
	}
}

// leftovers looks for what belongs to no pod.
func (h Host) leftovers(ctx context.Context, r *report) {
	if h.Orphans == nil {
		return
	}
	found, err := h.Orphans.Orphans(ctx)
	if err != nil {
		r.add(Warning, "", "cannot look for them: %v", err)
	}
	for _, o := range found {
		f := r.add(Warning, "nodectl doctor --fix", "%s %s belongs to nothing", o.Kind, where(o))
		f.Fix = func(ctx context.Context) error { return h.Orphans.RemoveOrphan(ctx, o) }
	}
	if len(r.findings) == 0 {
		r.ok("none: no mount, namespace, network, snapshot or cgroup of ours belongs to nothing")
	}
}

func where(o sandbox.Orphan) string {
	if o.Path == "" || o.Path == o.ID {
		return o.ID
	}
	return fmt.Sprintf("%s (%s)", o.ID[:min(len(o.ID), 12)], o.Path)
}
