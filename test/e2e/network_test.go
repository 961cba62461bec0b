package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

// conflist is a network of the reference plugins.
func conflist(name, bridge, subnet, data string) string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "plugins": [
  {"type": "bridge", "bridge": %q, "isGateway": true, "ipMasq": true, "ipam": {"type": "host-local", "dataDir": %q,
    "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}]}`, name, bridge, data, subnet)
}

// deleteLink removes the bridge that CNI's bridge plugin leaves.
func (n *node) deleteLink(name string) {
	n.t.Helper()
	link, err := netlink.LinkByName(name)
	n.Must("find link "+name, err)
	n.Must("delete link "+name, netlink.LinkDel(link))
}

// forgetTable deletes an IPv4 table of nftables when the test ends, if it is not there now: the executed portmap plugin
// keeps its chains for ever.
func forgetTable(t *testing.T, name string) {
	t.Helper()
	nft := testenv.Program(t, "nft", "nftables")
	if testenv.Run(t, nft, "list", "table", "ip", name).Code == 0 {
		return
	}
	t.Cleanup(func() { testenv.Run(t, nft, "delete", "table", "ip", name) })
}

// fetch gets a page, waiting for the server to come up.
func fetch(t *testing.T, url string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	var body []byte
	testenv.Eventually(t, eventLimit, "fetch "+url, func() error {
		answer, err := client.Get(url)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		body, err = io.ReadAll(answer.Body)
		return err
	})
	return string(body)
}

// freePort returns a port of the loopback address that nothing listens on.
func freePort(t *testing.T) int32 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return int32(l.Addr().(*net.TCPAddr).Port)
}

// webPod runs a pod with a web server that is published on a port of the host, and fetches its page both ways.
func (n *node) webPod(t *testing.T) {
	t.Helper()
	n.Pull(images.Nginx)
	config := n.podConfig("web")
	port := freePort(t)
	config.PortMappings = []*runtimeapi.PortMapping{{Protocol: runtimeapi.Protocol_TCP, ContainerPort: 80, HostPort: port}}
	pod := n.RunPod(config)
	n.Started(pod, config, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "web"}, Image: &runtimeapi.ImageSpec{Image: images.Nginx},
		LogPath: "web.log", Linux: &runtimeapi.LinuxContainerConfig{},
	})
	address := n.PodStatus(pod).Network.Ip
	for _, url := range []string{"http://" + address + "/", fmt.Sprintf("http://127.0.0.1:%d/", port)} {
		if page := fetch(t, url); !strings.Contains(page, "It works") {
			t.Errorf("%s: %s", url, page)
		}
	}
	n.RemovePod(pod)
}

// With no configuration at all the agent brings a network of its own.
func TestEmbeddedNetwork(t *testing.T) {
	newNode(t, testenv.AgentOptions{}).webPod(t)
}

// The reference plugins' configuration gives the same, carried out in process or by the plugins themselves.
func TestConfiguredNetwork(t *testing.T) {
	for name, args := range map[string][]string{"in process": nil, "executed": {"builtin_plugins = false"}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			bridge := "e2e" + strings.ReplaceAll(name[:3], " ", "") + "0"
			text := conflist("e2e", bridge, "10.236.0.0/24", filepath.Join(dir, "ipam"))
			if err := os.WriteFile(filepath.Join(dir, "10-e2e.conflist"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			n := newNode(t, testenv.AgentOptions{CNIConfDir: dir, CNIBinDir: testenv.CNIPlugins(t), Config: strings.Join(args, "\n")})
			forgetTable(t, "nat")
			n.webPod(t)
			n.deleteLink(bridge)
		})
	}
}

// Addresses come back: a network with room for few pods serves many, one after the other, also when the agent is killed
// in between.
func TestAddressesComeBack(t *testing.T) {
	dir := t.TempDir()
	text := conflist("small", "e2esmall0", "10.237.0.0/29", filepath.Join(dir, "ipam"))
	if err := os.WriteFile(filepath.Join(dir, "10-small.conflist"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, testenv.AgentOptions{CNIConfDir: dir, CNIBinDir: testenv.CNIPlugins(t)})
	for i := range 20 {
		pod := n.RunPod(n.podConfig("address"))
		if i%7 == 3 {
			n.Kill9()
			n.Start()
		}
		n.RemovePod(pod)
	}
	n.deleteLink("e2esmall0")
}

// Pods of a runtime handler get its network; one whose network is missing fails alone, and the node stays ready.
func TestNetworkOfHandler(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"ordinary", "apart"} {
		text := conflist(name, fmt.Sprintf("e2ehand%d", i), fmt.Sprintf("10.23%d.0.0/24", 8+i), filepath.Join(dir, "ipam"))
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d-%s.conflist", i, name)), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	n := newNode(t, testenv.AgentOptions{CNIConfDir: dir, CNIBinDir: testenv.CNIPlugins(t), Config: `[handlers.isolated]
network = "apart"
[handlers.plain]
[handlers.missing]
network = "` + filepath.Join(dir, "none") + `"
`})
	ctx, cancel := n.Context()
	defer cancel()
	for handler, subnet := range map[string]string{"": "10.238.", "plain": "10.238.", "isolated": "10.239."} {
		answer, err := n.Runtime().RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: n.podConfig("pod" + handler), RuntimeHandler: handler})
		n.Must("run pod of handler "+handler, err)
		if ip := n.PodStatus(answer.PodSandboxId).Network.Ip; !strings.HasPrefix(ip, subnet) {
			t.Errorf("handler %q: address %s, want one of %s", handler, ip, subnet)
		}
		n.RemovePod(answer.PodSandboxId)
	}
	_, err := n.Runtime().RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: n.podConfig("lost"), RuntimeHandler: "missing"})
	refused(t, err, status.Code(err), "runtime handler missing")
	if ready, why := n.networkReady(); !ready {
		t.Errorf("not ready: %s", why)
	}
	n.deleteLink("e2ehand0")
	n.deleteLink("e2ehand1")
}
