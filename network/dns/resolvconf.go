package dns

import (
	"bufio"
	"bytes"
	"net/netip"
	"strings"
)

// MaxResolvConf bounds what is read of a resolv.conf, in bytes.
const MaxResolvConf = 64 << 10

// Port is where resolvers are asked.
const Port = 53

// ResolvConf is what matters of a resolv.conf(5).
type ResolvConf struct {
	Servers  []netip.AddrPort
	Searches []string
	Options  []string
}

// ParseResolvConf reads a resolv.conf; lines that cannot be understood are
// left out, as C libraries do.
func ParseResolvConf(data []byte) ResolvConf {
	var c ResolvConf
	lines := bufio.NewScanner(bytes.NewReader(data[:min(len(data), MaxResolvConf)]))
	lines.Buffer(nil, MaxResolvConf+1)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if addr, err := netip.ParseAddr(fields[1]); err == nil {
				c.Servers = append(c.Servers, netip.AddrPortFrom(addr, Port))
			}
		case "domain":
			c.Searches = fields[1:2]
		case "search":
			c.Searches = fields[1:]
		case "options":
			c.Options = append(c.Options, fields[1:]...)
		}
	}
	return c
}
