package nodeapi

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
)

const (
	hostsName = "hosts"
	// hostGateway stands for the host's address in --add-host.
	hostGateway = "host-gateway"
	// maxHostsFile bounds what is read of the host's own file.
	maxHostsFile = 1 << 20
)

// writeHosts writes the container's /etc/hosts, once its address is known.
func (m *making) writeHosts(context.Context) error {
	pod, err := m.server.sandboxes.Pod(m.podID)
	if err != nil {
		return err
	}
	var content []byte
	if m.spec.GetNetwork().GetMode() == networkHost {
		if content, err = readHosts("/etc/hosts"); err != nil {
			return err
		}
	}
	content = append(content, hostsFile(m.spec, pod)...)
	links, err := m.server.linkHosts(m.spec.GetLinks())
	if err != nil {
		return err
	}
	for _, line := range links {
		content = append(content, line+"\n"...)
	}
	return os.WriteFile(m.server.files.path(m.key, hostsName), content, 0o644)
}

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

// hostsFile is the file's content, or what is added to the host's on its
// network.
func hostsFile(spec *nodev1.ContainerSpec, pod sandbox.Pod) []byte {
	var b bytes.Buffer
	gateway := "127.0.0.1"
	if spec.GetNetwork().GetMode() != networkHost {
		b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
		if pod.Network != nil && pod.Network.Gateway.IsValid() {
			gateway = pod.Network.Gateway.String()
		}
	}
	for _, host := range spec.GetNetwork().GetHosts() {
		name, addr, _ := strings.Cut(host, ":")
		if addr == hostGateway {
			addr = gateway
		}
		fmt.Fprintf(&b, "%s\t%s\n", addr, name)
	}
	if pod.Network != nil {
		for _, prefix := range pod.Network.Addresses {
			fmt.Fprintf(&b, "%s\t%s\n", prefix.Addr(), spec.GetHostname())
		}
	}
	return b.Bytes()
}
