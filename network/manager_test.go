package network

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// testConfig has folders of its own and no configuration.
func testConfig(t testing.TB) Config {
	dir := t.TempDir()
	conf := filepath.Join(dir, "net.d")
	if err := os.MkdirAll(conf, 0o755); err != nil {
		t.Fatal(err)
	}
	return Config{
		ConfDir: conf, BinDirs: []string{filepath.Join(dir, "bin")}, StateDir: tmpfs(t),
		RootDir: filepath.Join(dir, "root"), SharedDir: filepath.Join(dir, "shared"), Instance: "test", BuiltinPlugins: true,
	}
}

// tmpfs makes a folder on one, as /run is.
func tmpfs(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "nodeagent-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// newManager makes a manager that takes everything back in the end.
func newManager(t testing.TB, cfg Config) *Manager {
	t.Helper()
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.GC(context.Background(), nil); err != nil {
			t.Error(err)
		}
		if err := m.Cleanup(context.Background()); err != nil {
			t.Error(err)
		}
		m.Close()
	})
	return m
}

func newPod(t testing.TB) Attachment {
	t.Helper()
	id := make([]byte, 32)
	rand.Read(id)
	return Attachment{PodID: hex.EncodeToString(id), NetNS: newNetNS(t), Name: "pod", Namespace: "default", UID: hex.EncodeToString(id[:8])}
}

// BenchmarkAdd measures Add of a dual-stack pod with a host port: on the
// embedded network, and with a configuration of the reference plugins, in
// process and executed. The pods stay, since the kernel's slow removal of links
// would be measured otherwise.
func BenchmarkAdd(b *testing.B) {
	for _, way := range []string{"embedded", "builtin", "executed"} {
		b.Run(way, func(b *testing.B) {
			rooted(b)
			cfg := testConfig(b)
			cfg.BuiltinPlugins = way != "executed"
			if way == "executed" {
				cfg.BinDirs = []string{testenv.CNIPlugins(b)}
			}
			if way != "embedded" {
				writeConf(b, cfg, "10-test.conflist", conflist(filepath.Join(b.TempDir(), "addresses")))
				b.Cleanup(func() { tidy(b) })
			}
			benchmarkAdd(b, newManager(b, cfg))
		})
	}
}

func benchmarkAdd(b *testing.B, m *Manager) {
	for port := uint16(10000); b.Loop(); port++ {
		b.StopTimer()
		a := newPod(b)
		a.Ports = []PortMapping{{Protocol: TCP, HostPort: port, ContainerPort: 80}}
		b.StartTimer()
		if _, err := m.Add(context.Background(), a); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDel measures Del, without the kernel's removal of links.
func BenchmarkDel(b *testing.B) {
	rooted(b)
	m := newManager(b, testConfig(b))
	ctx := context.Background()
	for b.Loop() {
		b.StopTimer()
		a := newPod(b)
		if _, err := m.Add(ctx, a); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := m.Del(ctx, a); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		dropNetNS(b, a.NetNS)
		b.StartTimer()
	}
}
