package container

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// parsePublish reads one --publish: [[IP:][HOSTPORT[-LAST]]:]PORT[-LAST][/PROTOCOL], or the long form of it.
// Without a port of the host the agent chooses one; ranges must be equally long, but for one port of the container, which
// gets one of a range.
func parsePublish(text string) ([]*nodev1.Port, error) {
	if strings.Contains(text, "=") {
		var err error
		if text, err = shortPublish(text); err != nil {
			return nil, err
		}
	}
	rest, proto, err := cutProtocol(text)
	if err != nil {
		return nil, err
	}
	ip, rest, err := cutAddress(rest, text)
	if err != nil {
		return nil, err
	}
	host, container := "", rest
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		host, container = rest[:i], rest[i+1:]
	}
	if container == "" {
		return nil, fmt.Errorf("no port specified: %s<empty>", text)
	}
	first, last, err := parseRange(container)
	if err != nil {
		return nil, fmt.Errorf("invalid containerPort: %s", container)
	}
	hostFirst, hostLast := 0, 0
	if host != "" {
		if hostFirst, hostLast, err = parseHostRange(host); err != nil {
			return nil, fmt.Errorf("invalid hostPort: %s", host)
		}
		if hostLast-hostFirst != last-first && first != last {
			return nil, fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", container, host)
		}
	}
	var out []*nodev1.Port
	for i := range last - first + 1 {
		p := &nodev1.Port{ContainerPort: uint32(first + i), Protocol: proto, HostIp: ip}
		if host != "" {
			p.HostPort = uint32(hostFirst + i)
		}
		if first == last && hostFirst != hostLast {
			p.HostPortLast = uint32(hostLast) // one of them, which is free
		}
		out = append(out, p)
	}
	return out, nil
}

// shortPublish makes the short form of the long one, published=HOSTPORT,target=PORT[,protocol=PROTOCOL].
func shortPublish(text string) (string, error) {
	parts := map[string]string{"protocol": "tcp"}
	for part := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(part, "=")
		if !ok || name == "" {
			return "", fmt.Errorf("invalid publish opts format (should be name=value but got '%s')", part)
		}
		parts[name] = value
	}
	return parts["published"] + ":" + parts["target"] + "/" + parts["protocol"], nil
}

// parseHostRange is parseRange for ports of the host, where 0 is any.
func parseHostRange(text string) (first, last int, err error) {
	if text == "0" {
		return 0, 0, nil
	}
	return parseRange(text)
}

// cutProtocol takes /tcp, /udp or /sctp off the end.
func cutProtocol(text string) (rest, proto string, err error) {
	rest, proto, ok := strings.Cut(text, "/")
	if !ok {
		return rest, "tcp", nil
	}
	switch proto = strings.ToLower(proto); proto {
	case "tcp", "udp", "sctp":
		return rest, proto, nil
	}
	return "", "", fmt.Errorf("invalid proto: %s", proto)
}

// cutAddress takes the host's address off the begin, an IPv6 one in brackets.
func cutAddress(rest, text string) (ip, after string, err error) {
	switch {
	case strings.HasPrefix(rest, "["):
		var ok bool
		if ip, after, ok = strings.Cut(rest[1:], "]:"); !ok {
			return "", "", fmt.Errorf("invalid IP address: %s", text)
		}
	case strings.Count(rest, ":") == 2:
		ip, after, _ = strings.Cut(rest, ":")
		if ip == "" {
			return "", after, nil
		}
	case strings.Count(rest, ":") > 2:
		return "", "", fmt.Errorf("invalid IP address: %s", text)
	default:
		return "", rest, nil
	}
	if _, err := netip.ParseAddr(ip); err != nil {
		return "", "", fmt.Errorf("invalid IP address: %s", ip)
	}
	return ip, after, nil
}

// parseExpose reads one --expose: PORT[-LAST][/PROTOCOL].
func parseExpose(text string) ([]string, error) {
	rest, proto, err := cutProtocol(text)
	if err != nil {
		return nil, err
	}
	first, last, err := parseRange(rest)
	if err != nil {
		return nil, fmt.Errorf("invalid range format for --expose: %s", text)
	}
	var out []string
	for n := first; n <= last; n++ {
		out = append(out, strconv.Itoa(n)+"/"+proto)
	}
	return out, nil
}

// parseRange reads "80" or "80-90".
func parseRange(text string) (first, last int, err error) {
	a, b, ranged := strings.Cut(text, "-")
	if first, err = parsePort(a); err != nil {
		return 0, 0, err
	}
	if !ranged {
		return first, first, nil
	}
	if last, err = parsePort(b); err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, fmt.Errorf("invalid range specified for port: %s", text)
	}
	return first, last, nil
}

func parsePort(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("invalid port: %q", text)
	}
	return int(n), nil
}
