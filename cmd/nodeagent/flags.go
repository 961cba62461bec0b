package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// defaultConfigPath is read when it is there and --config names no other.
const defaultConfigPath = "/etc/nodeagent/config.toml"

// flagValues holds the flags that override the configuration's keys.
type flagValues struct {
	config string
	values Config
}

// register adds the flags. Their defaults are shown for help alone: only a
// flag that was given overrides the file.
func (f *flagValues) register(flags *pflag.FlagSet) {
	d := defaultConfig()
	flags.StringVar(&f.config, "config", defaultConfigPath, "configuration `file`; the default one may be missing")
	flags.StringVar(&f.values.Root, "root", d.Root, "`folder` for what outlives a reboot")
	flags.StringVar(&f.values.State, "state", d.State, "`folder` for what a reboot voids")
	flags.StringVar(&f.values.Listen, "listen", d.Listen, "`socket` to serve on")
	flags.StringVar(&f.values.StreamAddress, "stream-address", d.StreamAddress, "`address` that exec, attach and port-forward are streamed from")
	flags.StringVar(&f.values.MetricsAddress, "metrics-address", d.MetricsAddress, "`address` that Prometheus' metrics are served on")
	flags.StringSliceVar(&f.values.CertsDirs, "certs-dir", d.CertsDirs, "`folders` of registry configuration")
	flags.StringVar(&f.values.CNIConfDir, "cni-conf-dir", d.CNIConfDir, "`folder` of CNI configurations")
	flags.StringSliceVar(&f.values.CNIBinDirs, "cni-bin-dir", d.CNIBinDirs, "`folders` of CNI plugins")
	flags.StringSliceVar(&f.values.CDISpecDirs, "cdi-spec-dir", d.CDISpecDirs, "`folders` of descriptions of CDI devices")
	flags.BoolVar(&f.values.BuiltinPlugins, "builtin-plugins", d.BuiltinPlugins, "carry out the reference CNI plugins in process")
	flags.StringVar(&f.values.Snapshotter, "snapshotter", d.Snapshotter, "`name` of the snapshotter")
	flags.StringSliceVar(&f.values.PinnedImages, "pinned-images", d.PinnedImages, "`images` that are never collected")
	flags.StringVar(&f.values.CgroupDriver, "cgroup-driver", d.CgroupDriver, "cgroupfs or systemd")
	flags.StringVar(&f.values.CgroupParent, "cgroup-parent", d.CgroupParent, "`cgroup` of pods that name no parent")
	flags.StringVar(&f.values.Supervisor, "supervisor", d.Supervisor, "`path` of nodesupervisor; empty means beside nodeagent")
	flags.Int64Var(&f.values.MaxLogLine, "max-log-line", d.MaxLogLine, "longest line of a container's log in `bytes`")
	flags.StringVar(&f.values.LogLevel, "log-level", d.LogLevel, "trace, debug, info, warning or error")
}

// load is the configuration that holds: defaults, then the file, then flags.
func (f *flagValues) load(flags *pflag.FlagSet) (Config, error) {
	cfg, err := readConfig(f.config)
	if errors.Is(err, fs.ErrNotExist) && !flags.Changed("config") {
		cfg, err = defaultConfig(), nil
	}
	if err != nil {
		return cfg, err
	}
	f.override(flags, &cfg)
	cfg.settleCgroupParent()
	return cfg, f.located(flags, cfg.validate())
}

// located puts before an error that begins with a key where its value is said.
func (f *flagValues) located(flags *pflag.FlagSet, err error) error {
	if err == nil {
		return nil
	}
	key, _, _ := strings.Cut(strings.SplitN(err.Error(), ":", 2)[0], ".")
	key, _, _ = strings.Cut(key, " ") // "root /x and state /y"
	raw, unread := os.ReadFile(f.config)
	if unread != nil {
		raw = nil
	}
	where := f.origin(flags, linesOf(raw), key)
	if where == "default" {
		return err
	}
	return fmt.Errorf("%s: %w", strings.Replace(where, f.config+" line", f.config+": line", 1), err)
}

func (f *flagValues) override(flags *pflag.FlagSet, cfg *Config) {
	for name, set := range map[string]func(){
		"root":            func() { cfg.Root = f.values.Root },
		"state":           func() { cfg.State = f.values.State },
		"listen":          func() { cfg.Listen = f.values.Listen },
		"stream-address":  func() { cfg.StreamAddress = f.values.StreamAddress },
		"metrics-address": func() { cfg.MetricsAddress = f.values.MetricsAddress },
		"certs-dir":       func() { cfg.CertsDirs = f.values.CertsDirs },
		"cni-conf-dir":    func() { cfg.CNIConfDir = f.values.CNIConfDir },
		"cni-bin-dir":     func() { cfg.CNIBinDirs = f.values.CNIBinDirs },
		"cdi-spec-dir":    func() { cfg.CDISpecDirs = f.values.CDISpecDirs },
		"builtin-plugins": func() { cfg.BuiltinPlugins = f.values.BuiltinPlugins },
		"snapshotter":     func() { cfg.Snapshotter = f.values.Snapshotter },
		"pinned-images":   func() { cfg.PinnedImages = f.values.PinnedImages },
		"cgroup-driver":   func() { cfg.CgroupDriver = f.values.CgroupDriver },
		"cgroup-parent":   func() { cfg.CgroupParent = f.values.CgroupParent },
		"supervisor":      func() { cfg.Supervisor = f.values.Supervisor },
		"max-log-line":    func() { cfg.MaxLogLine = f.values.MaxLogLine },
		"log-level":       func() { cfg.LogLevel = f.values.LogLevel },
	} {
		if flags.Changed(name) {
			set()
		}
	}
	// A state folder of one's own moves the socket with it, unless that is said too.
	if flags.Changed("state") && !flags.Changed("listen") && cfg.Listen == defaultConfig().Listen {
		cfg.Listen = "unix://" + cfg.State + "/nodeagent.sock"
	}
}
