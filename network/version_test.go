package network

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

// TestVersions: each version of CNI, and a configuration of a single plugin,
// give the same in process and executed, from ADD over CHECK to DEL.
func TestVersions(t *testing.T) {
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0", "single"} {
		t.Run(version, func(t *testing.T) {
			seen := map[bool]footprint{}
			ways(t, func(t *testing.T, cfg Config) {
				text := conflist(filepath.Join(t.TempDir(), "addresses"))
				text = strings.Replace(text, `"cniVersion": "1.0.0"`, `"cniVersion": "`+version+`"`, 1)
				text = strings.Replace(text, ",\n    {\"type\": \"firewall\"}", "", 1) // which begins with 0.4.0
				name := "05-version.conflist"
				if version == "single" {
					name = "05-version.conf"
					text = fmt.Sprintf(`{"cniVersion": "0.4.0", "name": "cni-test", "type": "bridge", "bridge": "cnitest0", "isDefaultGateway": true,
						"ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]]}}`, filepath.Join(t.TempDir(), "addresses"))
				}
				writeConf(t, cfg, name, text)
				m := newManager(t, cfg)
				if err := m.Status(context.Background()); err != nil {
					t.Fatal(err)
				}
				a := newPod(t)
				a.Ports = []PortMapping{{Protocol: TCP, HostPort: 8080, ContainerPort: 80}}
				a.Annotations = map[string]string{ingressAnnotation: "10M"}
				result := mustAdd(t, m, a)
				if err := m.Check(context.Background(), a); err != nil && (version != "0.3.1" || !strings.Contains(err.Error(), "does not support the CHECK command")) {
					t.Error(err)
				}
				seen[cfg.BuiltinPlugins] = look(t, m, a, result)
				if err := m.GC(context.Background(), []Attachment{a}); err != nil {
					t.Error(err)
				}
				openPlace(t, "pod", a.NetNS).serve(t, 80)
				if version != "single" {
					hostPlace(t).mustAsk(t, "tcp", "127.0.0.1:8080")
				}
				mustDel(t, m, a)
			})
			if diff := cmp.Diff(seen[false], seen[true]); diff != "" {
				t.Errorf("executed (-) and built in (+) differ:\n%s", diff)
			}
		})
	}
}

// TestPluginIsTold: what a foreign plugin gets: its turn in the chain with the
// result so far, the capabilities it asks for, Kubernetes' arguments, and the
// same result again in CHECK and DEL. Its STATUS decides whether pods can come.
func TestPluginIsTold(t *testing.T) {
	rooted(t)
	t.Cleanup(func() { tidy(t) })
	cfg := testConfig(t)
	log := t.TempDir()
	script(t, cfg, "foreign", fmt.Sprintf(`cat > %[1]s/$CNI_COMMAND; env > %[1]s/$CNI_COMMAND.env
case $CNI_COMMAND in
ADD)
  echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.77.0.2/24"}], "dns": {"nameservers": ["192.0.2.99"]}}';;
STATUS) [ ! -e %[1]s/broken ] || { echo '{"cniVersion": "1.1.0", "code": 50, "msg": "the controller is away"}'; exit 1; };;
esac`, log))
	writeConf(t, cfg, "10-test.conflist", fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "cni-test", "plugins": [
		{"type": "bridge", "bridge": "cnitest0", "isGateway": true, "ipam": {"type": "host-local", "dataDir": %q, "subnet": "10.77.0.0/24"}},
		{"type": "foreign", "capabilities": {"portMappings": true, "bandwidth": true, "dns": true, "mac": true, "io.kubernetes.cri.pod-annotations": true}}]}`, t.TempDir()))
	m := newManager(t, cfg)
	ctx := context.Background()
	if err := m.Status(ctx); err != nil {
		t.Fatal(err)
	}
	a := newPod(t)
	a.Ports = []PortMapping{{Protocol: UDP, HostPort: 8080, ContainerPort: 80}}
	a.Annotations = map[string]string{egressAnnotation: "1M"}
	a.DNSServers, a.MAC = []string{"192.0.2.53"}, "02:00:5e:00:53:01"
	mustAdd(t, m, a)
	if err := m.Check(ctx, a); err != nil {
		t.Error(err)
	}
	if err := m.GC(ctx, []Attachment{a}); err != nil {
		t.Error(err)
	}
	mustDel(t, m, a)
	for file, wants := range map[string][]string{
		"ADD": {`"prevResult":{`, `"10.77.0.2/24"`, `"hostPort":8080`, `"protocol":"udp"`, `"egressRate":1000000`, `"192.0.2.53"`, `"mac":"02:00:5e:00:53:01"`, egressAnnotation},
		// Results later on are the last plugin's.
		"CHECK": {`"192.0.2.99"`, `"hostPort":8080`}, "DEL": {`"192.0.2.99"`, `"hostPort":8080`},
		"GC":      {"cni.dev/valid-attachments", a.PodID},
		"ADD.env": {"CNI_CONTAINERID=" + a.PodID, "CNI_NETNS=" + a.NetNS, "CNI_IFNAME=eth0", "CNI_PATH=" + cfg.BinDirs[0], "K8S_POD_NAMESPACE=default", "K8S_POD_NAME=pod", "K8S_POD_INFRA_CONTAINER_ID=" + a.PodID, "K8S_POD_UID=" + a.UID, "IgnoreUnknown=1"},
		"STATUS":  {`"name":"cni-test"`},
	} {
		data, err := os.ReadFile(filepath.Join(log, file))
		if err != nil {
			t.Error(err)
		}
		for _, want := range wants {
			if !strings.Contains(string(data), want) {
				t.Errorf("%s lacks %s: %s", file, want, data)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(log, "broken"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Status(ctx); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "the controller is away") {
		t.Errorf("Status: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(cfg.RootDir, "cni-cache", "results")); slices.ContainsFunc(left, func(e os.DirEntry) bool { return !e.IsDir() }) {
		t.Errorf("results left: %v", left)
	}
}
