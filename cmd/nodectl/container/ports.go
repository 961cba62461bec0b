package container

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// portRun is a run of ports that follow each other and are published alike.
type portRun struct {
	ip, proto   string
	first, last uint32
}

// String is the run as ps shows it.
func (r portRun) String() string {
	text := strconv.Itoa(int(r.first))
	if r.last != r.first {
		text += "-" + strconv.Itoa(int(r.last))
	}
	if r.ip != "" {
		text = net.JoinHostPort(r.ip, text) + "->" + text
	}
	return text + "/" + r.proto
}

// displayPorts is how ps shows ports: those published under their own number
// and those only exposed in runs, then those published under another.
func displayPorts(ports []*nodev1.Port) string {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(a, b *nodev1.Port) int {
		return cmp.Or(
			cmp.Compare(a.GetContainerPort(), b.GetContainerPort()),
			cmp.Compare(a.GetHostIp(), b.GetHostIp()),
			cmp.Compare(a.GetHostPort(), b.GetHostPort()),
			cmp.Compare(a.GetProtocol(), b.GetProtocol()),
		)
	})
	var done, mapped []string
	var runs []portRun
	for _, p := range ports {
		r := portRun{proto: p.GetProtocol(), first: p.GetContainerPort(), last: p.GetContainerPort()}
		if p.GetHostPort() != 0 {
			r.ip = hostIP(p)
			if p.GetHostPort() != p.GetContainerPort() {
				mapped = append(mapped, fmt.Sprintf("%s->%d/%s", hostAddress(p), p.GetContainerPort(), p.GetProtocol()))
				continue
			}
		}
		i := slices.IndexFunc(runs, func(o portRun) bool { return o.ip == r.ip && o.proto == r.proto })
		switch {
		case i < 0:
			runs = append(runs, r)
		case runs[i].last+1 == r.first:
			runs[i].last = r.first
		default:
			done = append(done, runs[i].String())
			runs[i] = r
		}
	}
	for _, r := range runs {
		done = append(done, r.String())
	}
	return strings.Join(append(done, mapped...), ", ")
}
