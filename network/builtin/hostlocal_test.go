package builtin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// TestSameLeases: whatever is configured and asked for, in process and executed
// give the same results, or both refuse, and leave the same files.
func TestSameLeases(t *testing.T) {
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	text := "# of a test\nnameserver 192.0.2.53\nnameserver 2001:db8::53\ndomain example.org\nsearch a.example b.example\noptions ndots:2 edns0\n"
	if err := os.WriteFile(resolv, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, each := range map[string]struct{ version, ipam, rest, args string }{
		"subnet":            {ipam: `"subnet": "10.77.0.0/30"`},
		"old version":       {version: "0.3.1", ipam: `"subnet": "10.77.0.0/24"`},
		"0.4.0":             {version: "0.4.0", ipam: `"ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]]`},
		"1.1.0":             {version: "1.1.0", ipam: `"ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]]`},
		"part of a subnet":  {ipam: `"ranges": [[{"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.9", "rangeEnd": "10.77.0.11", "gateway": "10.77.0.254"}]]`},
		"several ranges":    {ipam: `"ranges": [[{"subnet": "10.77.0.0/30"}, {"subnet": "10.77.1.0/29"}]]`},
		"gateway within":    {ipam: `"ranges": [[{"subnet": "10.77.0.0/29", "gateway": "10.77.0.2"}]]`},
		"routes":            {version: "1.1.0", ipam: `"subnet": "10.77.0.0/24", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.77.0.9", "mtu": 1400, "advmss": 1300, "priority": 7, "table": 50, "scope": 253}]`},
		"routes, old":       {version: "0.4.0", ipam: `"subnet": "10.77.0.0/24", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.77.0.9"}]`},
		"resolvConf":        {ipam: fmt.Sprintf(`"subnet": "10.77.0.0/24", "resolvConf": %q`, resolv)},
		"no resolvConf":     {ipam: `"subnet": "10.77.0.0/24", "resolvConf": "/nonexistent"`},
		"wanted, CNI_ARGS":  {ipam: `"subnet": "10.77.0.0/24"`, args: "IP=10.77.0.77"},
		"wanted, args":      {ipam: `"subnet": "10.77.0.0/24"`, rest: `, "args": {"cni": {"ips": ["10.77.0.78/24"]}}`},
		"wanted, runtime":   {ipam: `"ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]]`, rest: `, "runtimeConfig": {"ips": ["10.77.0.79", "fd77::79"]}`},
		"wanted, elsewhere": {ipam: `"subnet": "10.77.0.0/24"`, args: "IP=10.99.0.77"},
		"wanted gateway":    {ipam: `"subnet": "10.77.0.0/24"`, args: "IP=10.77.0.1"},
		"ranges at runtime": {ipam: `"subnet": "10.77.0.0/24"`, rest: `, "runtimeConfig": {"ipRanges": [[{"subnet": "10.66.0.0/24"}]]}`},
		"unknown arguments": {ipam: `"subnet": "10.77.0.0/24"`, args: "IgnoreUnknown=1;K8S_POD_NAME=x"},
	} {
		t.Run(name, func(t *testing.T) {
			version := each.version
			if version == "" {
				version = "1.0.0"
			}
			conf := func(dir string) string {
				return fmt.Sprintf(`{"cniVersion": %q, "name": "net", "type": "bridge", "ipam": {"type": "host-local", "dataDir": %q, %s}%s}`, version, dir, each.ipam, each.rest)
			}
			ours, theirs := t.TempDir(), t.TempDir()
			// The third of some has no address left; the second asks for the first's.
			for _, id := range []string{"one", "two", "three", "four", "five"} {
				have, err := takeOurs(t, conf(ours), id, each.args)
				want, theirErr := takeTheirs(t, conf(theirs), id, each.args)
				if (err == nil) != (theirErr == nil) {
					t.Fatalf("%s: in process %v, executed %v", id, err, theirErr)
				}
				if diff := cmp.Diff(want, have); diff != "" {
					t.Fatalf("%s: executed (-) and in process (+) differ:\n%s", id, diff)
				}
			}
			if diff := cmp.Diff(files(t, theirs), files(t, ours)); diff != "" {
				t.Errorf("files of executed (-) and in process (+) differ:\n%s", diff)
			}
		})
	}
}

func takeOurs(t *testing.T, conf, id, args string) (any, error) {
	t.Helper()
	c := call("ADD", id, []byte(conf))
	c.Args = args
	out, err := (&Plugins{}).Run(context.Background(), "host-local", c)
	return decoded(t, out, err), err
}

func takeTheirs(t *testing.T, conf, id, args string) (any, error) {
	t.Helper()
	cmd := exec.Command(filepath.Join(testenv.CNIPlugins(t), "host-local"))
	cmd.Env = []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=" + id, "CNI_NETNS=/none", "CNI_IFNAME=eth0", "CNI_PATH=/none", "CNI_ARGS=" + args}
	cmd.Stdin = strings.NewReader(conf)
	out, err := cmd.Output()
	return decoded(t, out, err), err
}

func decoded(t *testing.T, out []byte, err error) any {
	t.Helper()
	if err != nil {
		return nil
	}
	var value any
	if err := json.Unmarshal(bytes.TrimSpace(out), &value); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return value
}

// files are those of a folder, by name.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	paths, err := filepath.Glob(filepath.Join(dir, "net", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found[filepath.Base(path)] = string(data)
	}
	return found
}
