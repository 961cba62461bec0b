package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"
)

func TestParseConfigRefusals(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"unknown key":       {"root = \"/a\"\ncgroup_drver = \"cgroupfs\"\n", `line 2: unknown key "cgroup_drver"; did you mean "cgroup_driver"?`},
		"nothing like it":   {"zzzzzzzzzzzz = 1\n", `line 1: unknown key "zzzzzzzzzzzz"`},
		"not TOML":          {"root = \n", "line 1"},
		"wrong type":        {"root = 7\n", "line 1"},
		"a table's name":    {"[handler.x]\n", `unknown key "handler.x"; did you mean "handlers"?`},
		"in a table":        {"[handlers.x]\nnetwrk = \"y\"\n", `line 2: unknown key "handlers.x.netwrk"; did you mean "network"?`},
		"table out of date": {"[plugins]\nx = 1\n", "unknown key"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := defaultConfig()
			err := parseConfig([]byte(test.text), &cfg)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want it to say %q", err, test.want)
			}
		})
	}
}

func TestValidateNamesTheKey(t *testing.T) {
	for key, change := range map[string]func(*Config){
		"root":                   func(c *Config) { c.Root = "var/lib" },
		"state":                  func(c *Config) { c.State = c.Root + "/state" },
		"listen":                 func(c *Config) { c.Listen = "tcp://127.0.0.1:1" },
		"cni_bin_dirs":           func(c *Config) { c.CNIBinDirs = []string{"/opt/cni/bin", "bin"} },
		"stream_address":         func(c *Config) { c.StreamAddress = "localhost" },
		"metrics_address":        func(c *Config) { c.MetricsAddress = "9324" },
		"snapshotter":            func(c *Config) { c.Snapshotter = "aufs" },
		"cgroup_driver":          func(c *Config) { c.CgroupDriver = "sysd" },
		"cgroup_parent":          func(c *Config) { c.CgroupParent = "/../x" },
		"max_log_line":           func(c *Config) { c.MaxLogLine = 1 << 9 },
		"log_level":              func(c *Config) { c.LogLevel = "loud" },
		"handlers":               func(c *Config) { c.Handlers = map[string]Handler{"Upper": {}} },
		"handlers.x.pids_limit":  func(c *Config) { c.Handlers = map[string]Handler{"x": {PidsLimit: -1}} },
		"handlers.x.snapshotter": func(c *Config) { c.Handlers = map[string]Handler{"x": {Snapshotter: "aufs"}} },
		"proxy_snapshotters":     func(c *Config) { c.ProxySnapshotters = map[string]string{"overlay": "/run/x.sock"} },
		"proxy_snapshotters.x":   func(c *Config) { c.ProxySnapshotters = map[string]string{"x": "run/x.sock"} },
		"network":                func(c *Config) { c.Handlers = map[string]Handler{"x": {Network: "a/b"}} },
	} {
		cfg := defaultConfig()
		change(&cfg)
		if err := cfg.validate(); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: got %v", key, err)
		}
	}
	slice := defaultConfig()
	slice.CgroupDriver, slice.CgroupParent = "systemd", "/pods"
	if err := slice.validate(); err == nil || !strings.Contains(err.Error(), "cgroup_parent") {
		t.Errorf("no slice for systemd: got %v", err)
	}
	good := defaultConfig()
	if err := good.validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
}

func TestCgroupParentWithSystemd(t *testing.T) {
	for given, want := range map[string]string{
		defaultConfig().CgroupParent: "/nodeagent.slice", "a-b.slice": "/a.slice/a-b.slice", "/a.slice/a-b.slice": "/a.slice/a-b.slice",
	} {
		cfg := defaultConfig()
		cfg.CgroupDriver, cfg.CgroupParent = "systemd", given
		cfg.settleCgroupParent()
		if err := cfg.validate(); err != nil || cfg.CgroupParent != want {
			t.Errorf("%s: %s, %v; want %s", given, cfg.CgroupParent, err, want)
		}
	}
}

func TestFlagsOverrideTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte("root = \"/a\"\nlog_level = \"debug\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var flags flagValues
	set := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags.register(set)
	if err := set.Parse([]string{"--config", path, "--root", "/b", "--state", "/c"}); err != nil {
		t.Fatal(err)
	}
	cfg, err := flags.load(set)
	if err != nil {
		t.Fatal(err)
	}
	want := defaultConfig()
	want.Root, want.State, want.LogLevel, want.Listen = "/b", "/c", "debug", "unix:///c/nodeagent.sock"
	if diff := cmp.Diff(want, cfg); diff != "" {
		t.Error(diff)
	}
}

// The default, written out, must read back as itself.
func TestDefaultConfigReadsBack(t *testing.T) {
	out, err := toml.Marshal(defaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	var cfg Config
	if err := parseConfig(out, &cfg); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(defaultConfig(), cfg); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("root = \"/a\"\n"))
	f.Add([]byte("[a.b]\nc = [1, 2"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		cfg := defaultConfig()
		if parseConfig(raw, &cfg) == nil {
			_ = cfg.validate()
		}
	})
}
