package builtin

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

func ipamConf(dir string) []byte {
	return fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": "net", "ipam": {"type": "host-local", "dataDir": %q, "subnet": "10.77.0.0/24"}}`, dir)
}

func call(command, id string, conf []byte) *Call {
	return &Call{Command: command, ContainerID: id, IfName: "eth0", Conf: conf}
}

// TestSharedWithThePlugin: both take addresses of one folder at the same time,
// none twice, and each gives back what the other one took.
func TestSharedWithThePlugin(t *testing.T) {
	plugin := filepath.Join(testenv.CNIPlugins(t), "host-local")
	conf := ipamConf(t.TempDir())
	p := &Plugins{}
	ctx := context.Background()
	theirs := func(command, id string) ([]byte, error) {
		cmd := exec.Command(plugin)
		cmd.Env = []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + id, "CNI_NETNS=/none", "CNI_IFNAME=eth0", "CNI_PATH=/none"}
		cmd.Stdin = strings.NewReader(string(conf))
		return cmd.Output()
	}
	const each = 20
	var mu sync.Mutex
	seen := map[string]string{}
	take := func(id string, run func() ([]byte, error)) {
		out, err := run()
		var result current.Result
		if err == nil {
			err = json.Unmarshal(out, &result)
		}
		if err != nil {
			t.Errorf("%s: %v: %s", id, err, out)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		address := result.IPs[0].Address.String()
		if other := seen[address]; other != "" {
			t.Errorf("%s and %s have %s", id, other, address)
		}
		seen[address] = id
	}
	var wg sync.WaitGroup
	for i := range each {
		wg.Go(func() {
			id := fmt.Sprintf("ours%d", i)
			take(id, func() ([]byte, error) { return p.Run(ctx, "host-local", call("ADD", id, conf)) })
		})
		wg.Go(func() {
			id := fmt.Sprintf("theirs%d", i)
			take(id, func() ([]byte, error) { return theirs("ADD", id) })
		})
	}
	wg.Wait()
	for i := range each {
		if _, err := p.Run(ctx, "host-local", call("DEL", fmt.Sprintf("theirs%d", i), conf)); err != nil {
			t.Error(err)
		}
		if out, err := theirs("DEL", fmt.Sprintf("ours%d", i)); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	var head struct {
		IPAM struct {
			DataDir string `json:"dataDir"`
		} `json:"ipam"`
	}
	if err := json.Unmarshal(conf, &head); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(head.IPAM.DataDir, "net", "10.*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// A process that was killed between making an address's file and writing into it
// takes no address away for ever.
func TestEmptyLeaseIsFree(t *testing.T) {
	dir := t.TempDir()
	conf := fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": "net", "ipam": {"type": "host-local", "dataDir": %q, "subnet": "10.77.0.0/30"}}`, dir)
	if err := os.MkdirAll(filepath.Join(dir, "net"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "net", "10.77.0.2"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := &Plugins{}
	if _, err := p.Run(t.Context(), "host-local", call("ADD", "pod", conf)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Run(t.Context(), "host-local", call("ADD", "other", conf)); err == nil {
		t.Error("an address was given away twice")
	}
	if _, err := p.Run(t.Context(), "host-local", call("DEL", "pod", conf)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "net", "10.77.0.2")); !os.IsNotExist(err) {
		t.Errorf("the address was not given back: %v", err)
	}
}

// TestHeldLock: a process that never lets go of the lock costs the caller its
// deadline, not forever.
func TestHeldLock(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "net"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "net", lockFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := (&Plugins{}).Run(ctx, "host-local", call("ADD", "x", ipamConf(dir))); err == nil || !strings.Contains(err.Error(), "another process holds") {
		t.Errorf("got %v", err)
	}
}

// TestGCOfAddresses gives back what the runtime does not list.
func TestGCOfAddresses(t *testing.T) {
	dir := t.TempDir()
	p := &Plugins{}
	ctx := context.Background()
	for _, id := range []string{"kept", "stale"} {
		if _, err := p.Run(ctx, "host-local", call("ADD", id, ipamConf(dir))); err != nil {
			t.Fatal(err)
		}
	}
	conf := strings.Replace(string(ipamConf(dir)), "{", `{"cni.dev/valid-attachments": [{"containerID": "kept", "ifname": "eth0"}], `, 1)
	if _, err := p.Run(ctx, "host-local", call("GC", "", []byte(conf))); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Run(ctx, "host-local", call("GC", "", ipamConf(dir))); err == nil {
		t.Error("GC without a list gave back everything")
	}
	left, err := filepath.Glob(filepath.Join(dir, "net", "10.*"))
	if err != nil || len(left) != 1 {
		t.Errorf("left: %v %v", left, err)
	}
}

// FuzzPortMappings: whatever the runtime is made to say, no port is zero and
// no family mixed.
func FuzzPortMappings(f *testing.F) {
	f.Add([]byte(`[{"hostPort": 80, "containerPort": 8080, "protocol": "tcp", "hostIP": "::"}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var mappings []portMapping
		if json.Unmarshal(data, &mappings) != nil {
			return
		}
		result := &current.Result{}
		if err := json.Unmarshal([]byte(`{"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/16"}, {"address": "fd00::2/64"}]}`), result); err != nil {
			t.Fatal(err)
		}
		ports, err := portsOf(mappings, podAddresses(result, "eth0"))
		if err != nil {
			return
		}
		for _, port := range ports {
			if port.HostPort == 0 || port.Target.Port() == 0 || port.HostIP.IsValid() && port.HostIP.Is4() != port.Target.Addr().Is4() {
				t.Fatalf("%+v of %s", port, data)
			}
		}
	})
}
