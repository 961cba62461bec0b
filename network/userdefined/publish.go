package userdefined

import (
	"context"
	"encoding/json"
	"net/netip"

	"github.com/nodeagent/nodeagent/network/builtin"
)

// portMapping is a port as portmap's capability has it.
type portMapping struct {
	HostPort      uint16 `json:"hostPort"`
	ContainerPort uint16 `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

// publishes says whether ports can be published on an endpoint.
func publishes(n Network, e *endpoint) bool {
	return n.Driver == Bridge && n.routed() && e.State == endpointWired
}

// portmapConfig is the configuration of the portmap plugin.
func (a *attaching) portmapConfig() ([]byte, error) {
	var ports []portMapping
	for _, p := range a.p.Ports {
		m := portMapping{HostPort: p.HostPort, ContainerPort: p.ContainerPort, Protocol: string(p.Protocol)}
		switch {
		case p.HostIP.IsValid():
			m.HostIP = p.HostIP.String()
		default:
			ports = append(ports, a.defaultBindings(m)...)
			continue
		}
		ports = append(ports, m)
	}
	return json.Marshal(map[string]any{
		"cniVersion": cniVersion, "name": a.n.ID, "type": "portmap",
		"runtimeConfig": map[string]any{"portMappings": ports}, "prevResult": a.e.Result,
	})
}

// defaultBindings are the host's addresses that the network binds ports to; all
// when it names none.
func (a *attaching) defaultBindings(m portMapping) []portMapping {
	v4, v6 := a.n.Options[optionHostIPv4], a.n.Options[optionHostIPv6]
	if v4 == "" && v6 == "" {
		return []portMapping{m}
	}
	var list []portMapping
	for _, one := range []struct {
		text string
		all  netip.Addr
	}{{v4, netip.IPv4Unspecified()}, {v6, netip.IPv6Unspecified()}} {
		m.HostIP = one.text
		if one.text == "" {
			m.HostIP = one.all.String()
		}
		list = append(list, m)
	}
	return list
}

// publish leads the member's ports to the endpoint.
func (a *attaching) publish(ctx context.Context, command string) error {
	conf, err := a.portmapConfig()
	if err == nil {
		_, err = a.m.cfg.Plugins.Run(ctx, "portmap", a.call(command, a.p.NetNS, conf))
	}
	return err
}

// unpublish takes the ports back, if they lead here.
func (a *attaching) unpublish(ctx context.Context) error {
	conf, err := json.Marshal(map[string]any{"cniVersion": cniVersion, "name": a.n.ID, "type": "portmap"})
	if err == nil {
		_, err = a.m.cfg.Plugins.Run(ctx, "portmap", a.call("DEL", "", conf))
	}
	return err
}

// settlePorts has the first endpoint that can publish the member's ports do so,
// unless the node's own network does. p is a copy that the caller saves
// afterwards; killed in between, a repetition finds the ports published.
func (m *Manager) settlePorts(ctx context.Context, p *member) error {
	if len(p.Ports) == 0 || (p.OnNode && (p.Node == nil || len(p.Node.Ports) > 0)) {
		return nil
	}
	for i := range p.Endpoints {
		e := &p.Endpoints[i]
		n, err := m.Find(e.Network)
		if err != nil || !publishes(n, e) {
			continue
		}
		if e.Publishing {
			return nil
		}
		if err := (&attaching{m, n, p, e}).publish(ctx, "ADD"); err != nil {
			return err
		}
		e.Publishing = true
		return nil
	}
	return nil
}

// restore writes what an endpoint has in the packet filter, where it is gone.
func (a *attaching) restore(ctx context.Context) error {
	if a.n.Driver != Bridge || a.e.State != endpointWired {
		return nil
	}
	conf, err := a.config()
	if err == nil {
		_, err = a.m.cfg.Plugins.Run(ctx, "bridge", a.call(builtin.Restore, a.p.NetNS, conf))
	}
	if err == nil && a.e.Publishing {
		err = a.publish(ctx, builtin.Restore)
	}
	return err
}
