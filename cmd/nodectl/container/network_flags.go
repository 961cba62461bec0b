package container

import (
	"encoding/csv"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/pflag"
)

// networkFlags are those of run and create about networks.
type networkFlags struct {
	networks                   []string
	publish, expose            []string
	publishAll                 bool
	dns, dnsSearch, dnsOptions []string
	addHosts                   []string
	aliases                    []string
	ip, ip6, mac               string
}

func (f *networkFlags) addNetwork(flags *pflag.FlagSet) {
	flags.StringArrayVarP(&f.publish, "publish", "p", nil, "Publish a container's port(s) to the host")
	flags.BoolVarP(&f.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	flags.StringArrayVar(&f.expose, "expose", nil, "Expose a port or a range of ports")
	flags.StringArrayVar(&f.networks, "network", nil, "Connect a container to a network")
	flags.StringArrayVar(&f.aliases, "network-alias", nil, "Add network-scoped alias for the container")
	flags.StringVar(&f.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	flags.StringVar(&f.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	flags.StringVar(&f.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	flags.StringArrayVar(&f.dns, "dns", nil, "Set custom DNS servers")
	flags.StringArrayVar(&f.dnsSearch, "dns-search", nil, "Set custom DNS search domains")
	flags.StringArrayVar(&f.dnsOptions, "dns-option", nil, "Set DNS options")
	flags.StringArrayVar(&f.addHosts, "add-host", nil, "Add a custom host-to-IP mapping (host:ip)")
	flags.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		switch name {
		case "net":
			name = "network"
		case "net-alias":
			name = "network-alias"
		case "dns-opt":
			name = "dns-option"
		}
		return pflag.NormalizedName(name)
	})
}

func (f *networkFlags) fillNetwork(spec *nodev1.ContainerSpec) error {
	endpoints, err := f.endpoints()
	if err != nil {
		return err
	}
	spec.Network = &nodev1.Network{
		Mode: endpoints[0].GetNetwork(), Endpoints: endpoints, PublishAll: f.publishAll,
		Dns: f.dns, DnsSearch: f.dnsSearch, DnsOptions: f.dnsOptions,
	}
	for _, text := range f.publish {
		ports, err := parsePublish(text)
		if err != nil {
			return err
		}
		spec.Network.Ports = append(spec.Network.Ports, ports...)
	}
	for _, text := range f.expose {
		ports, err := parseExpose(text)
		if err != nil {
			return err
		}
		spec.Network.Expose = append(spec.Network.Expose, ports...)
	}
	for _, server := range f.dns {
		if _, err := netip.ParseAddr(strings.TrimSpace(server)); err != nil {
			return &command.InvalidValue{Flag: "--dns", Value: server, Err: fmt.Errorf("IP address is not correctly formatted: %s", server)}
		}
	}
	if _, err := net.ParseMAC(f.mac); f.mac != "" && err != nil {
		return fmt.Errorf("%s is not a valid mac address", f.mac)
	}
	for _, host := range f.addHosts {
		entry, err := parseHost(host)
		if err != nil {
			return &command.InvalidValue{Flag: "--add-host", Value: host, Err: err}
		}
		spec.Network.Hosts = append(spec.Network.Hosts, entry)
	}
	return nil
}

// parseHost reads one --add-host: NAME:ADDRESS or NAME=ADDRESS, where an address
// may stand in brackets.
func parseHost(text string) (string, error) {
	i := strings.IndexAny(text, ":=")
	if i <= 0 || i == len(text)-1 {
		return "", fmt.Errorf("bad format for add-host: %q", text)
	}
	name, addr := text[:i], text[i+1:]
	if strings.HasPrefix(addr, "[") && strings.HasSuffix(addr, "]") {
		addr = addr[1 : len(addr)-1]
	}
	if _, err := netip.ParseAddr(addr); err != nil && addr != "host-gateway" {
		return "", fmt.Errorf("invalid IP address in add-host: %q", addr)
	}
	return name + ":" + addr, nil
}

// endpoints are the networks to join; --ip and its like are those of the first.
func (f *networkFlags) endpoints() ([]*nodev1.EndpointSpec, error) {
	var list []*nodev1.EndpointSpec
	for _, text := range f.networks {
		e, err := parseNetwork(text)
		if err != nil {
			return nil, &command.InvalidValue{Flag: "--network", Value: text, Err: err}
		}
		list = append(list, e)
	}
	if len(list) == 0 {
		list = []*nodev1.EndpointSpec{{Network: "bridge"}}
	}
	first := list[0]
	for _, one := range []struct{ flag, value string }{{"ip", f.ip}, {"ip6", f.ip6}, {"mac-address", f.mac}} {
		target := map[string]*string{"ip": &first.Ipv4, "ip6": &first.Ipv6, "mac-address": &first.Mac}[one.flag]
		switch {
		case one.value == "":
		case *target != "":
			return nil, fmt.Errorf("conflicting options: cannot specify both --%s and per-network settings of the same", one.flag)
		default:
			*target = one.value
		}
	}
	if len(f.aliases) > 0 && len(first.GetAliases()) > 0 {
		return nil, fmt.Errorf("conflicting options: cannot specify both --network-alias and per-network alias")
	}
	first.Aliases = append(first.Aliases, f.aliases...)
	return list, nil
}

// parseNetwork reads one --network: a name, or name=NAME,alias=ALIAS,ip=… as
// comma-separated values.
func parseNetwork(text string) (*nodev1.EndpointSpec, error) {
	if !strings.Contains(text, "=") {
		return &nodev1.EndpointSpec{Network: defaultNetwork(text)}, nil
	}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return nil, err
	}
	e := &nodev1.EndpointSpec{}
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if !ok || value == "" {
			return nil, fmt.Errorf("invalid field %s", field)
		}
		switch key = strings.ToLower(strings.TrimSpace(key)); key {
		case "name":
			e.Network = defaultNetwork(value)
		case "alias":
			e.Aliases = append(e.Aliases, value)
		case "ip":
			e.Ipv4 = value
		case "ip6":
			e.Ipv6 = value
		case "mac-address":
			e.Mac = value
		case "gw-priority":
			if e.GatewayPriority, err = strconv.ParseInt(value, 10, 64); err != nil {
				return nil, fmt.Errorf("invalid gw-priority (%s): invalid syntax", value)
			}
		case "driver-opt":
			option, setting, ok := strings.Cut(value, "=")
			if !ok {
				return nil, fmt.Errorf("invalid key value pair format in driver options")
			}
			if e.DriverOptions == nil {
				e.DriverOptions = map[string]string{}
			}
			e.DriverOptions[option] = setting
		default:
			return nil, fmt.Errorf("invalid field key %s", key)
		}
	}
	if e.GetNetwork() == "" {
		return nil, fmt.Errorf("network name/id is not specified")
	}
	return e, nil
}

// defaultNetwork is the network that "default" means.
func defaultNetwork(name string) string {
	if name == "default" {
		return "bridge"
	}
	return name
}
