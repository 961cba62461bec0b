package nodeapi

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

const (
	hostsName = "hosts"
	// hostGateway stands for the host's address in --add-host.
	hostGateway = "host-gateway"
	// maxHostsFile bounds what is read of the host's own file.
	maxHostsFile = 1 << 20
)

// readHosts reads the host's file.
func readHosts(path string) ([]byte, error) {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxHostsFile))
	if len(content) > 0 && !bytes.HasSuffix(content, []byte("\n")) {
		content = append(content, '\n')
	}
	return content, err
}

// loopbackHosts are the names of every container's loopback interface.
const loopbackHosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
	"fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"

// hostsFile is what a person and the networks add to a container's hosts:
// gateway is what host-gateway stands for.
func hostsFile(spec *nodev1.ContainerSpec, addrs []netip.Addr, gateway string) []byte {
	var b bytes.Buffer
	for _, host := range spec.GetNetwork().GetHosts() {
		name, addr, _ := strings.Cut(host, ":")
		if addr == hostGateway {
			addr = gateway
		}
		fmt.Fprintf(&b, "%s\t%s\n", addr, name)
	}
	for _, addr := range addrs {
		fmt.Fprintf(&b, "%s\t%s\n", addr, hostNames(spec))
	}
	return b.Bytes()
}

// hostNames are a container's names as its hosts file has them: the full one,
// and where it has a domain the one without it.
func hostNames(spec *nodev1.ContainerSpec) string {
	full := spec.GetHostname()
	if spec.GetDomainname() != "" {
		full += "." + spec.GetDomainname()
	}
	if name, _, ok := strings.Cut(full, "."); ok {
		return full + " " + name
	}
	return full
}
