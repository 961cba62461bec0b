package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/sirupsen/logrus"

	"github.com/nodeagent/nodeagent/cgroups"
	"github.com/nodeagent/nodeagent/imageservice"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/nodeagent/nodeagent/sandbox/spec/cdidevice"
)

// maxConfigSize bounds the configuration file, in bytes.
const maxConfigSize = 1 << 20

// What max_log_line may be, in bytes. The supervisor holds a line in memory for
// each stream until it ends.
const (
	minLogLine = 1 << 10
	maxLogLine = 512 << 10
)

// Config is the whole configuration: one flat file in TOML, each key of which
// a flag of the same name overrides. Paths are absolute.
type Config struct {
	// Root holds what outlives a reboot: content, snapshots, records.
	Root string `toml:"root" comment:"What outlives a reboot: content, snapshots, records."`
	// State holds what a reboot voids, and should be on tmpfs.
	State string `toml:"state" comment:"What a reboot voids: sockets, pinned namespaces, mounts. Best on tmpfs."`
	// Listen is the socket that CRI and the node API are served on.
	Listen string `toml:"listen" comment:"The socket that CRI and the node API are served on."`
	// StreamAddress is where exec, attach and port-forward streams are
	// served, over HTTP.
	StreamAddress string `toml:"stream_address" comment:"Where exec, attach and port-forward are streamed from, by HTTP. Port 0 takes any."`
	// MetricsAddress is where Prometheus' metrics are served; empty for nowhere.
	MetricsAddress string `toml:"metrics_address" comment:"Where Prometheus finds metrics, by HTTP at /metrics, such as 127.0.0.1:9324; empty for nowhere."`
	// CertsDirs are read at each pull, in this order.
	CertsDirs []string `toml:"certs_dirs" comment:"Registry configuration (HOST/hosts.toml), read at each pull, first found first."`
	// CNIConfDir and CNIBinDirs are where CNI's configurations and plugins lie.
	CNIConfDir string   `toml:"cni_conf_dir" comment:"CNI configurations; with none in it the embedded network is used."`
	CNIBinDirs []string `toml:"cni_bin_dirs" comment:"CNI plugins that are executed."`
	// CDISpecDirs are where devices of the Container Device Interface are
	// described.
	CDISpecDirs []string `toml:"cdi_spec_dirs" comment:"Descriptions of devices of the Container Device Interface, read when a container asks for one."`
	// BuiltinPlugins carries out the reference plugins in process.
	BuiltinPlugins bool `toml:"builtin_plugins" comment:"Carry out bridge, host-local, portmap, bandwidth, firewall and loopback in process."`
	// Snapshotter is the one that images are unpacked with.
	Snapshotter string `toml:"snapshotter" comment:"How image layers are kept: overlay, erofs, or a proxy snapshotter."`
	// ProxySnapshotters are sockets of further ones, by name.
	ProxySnapshotters map[string]string `toml:"proxy_snapshotters,omitempty" comment:"Snapshotters that other programs serve over containerd's protocol: a name, and a socket's path."`
	// PinnedImages are never collected.
	PinnedImages []string `toml:"pinned_images" comment:"Images that kubelet's garbage collection must leave: names, or patterns with a * at the end or at both."`
	// CgroupDriver is "cgroupfs" or "systemd".
	CgroupDriver string `toml:"cgroup_driver" comment:"Who makes cgroups, as kubelet's cgroupDriver: cgroupfs or systemd."`
	// CgroupParent is where pods without a parent of their own, and the
	// supervisor, are put.
	CgroupParent string `toml:"cgroup_parent" comment:"The cgroup of the supervisor and of pods that name no parent; with systemd a slice, nodeagent.slice if nothing else is said."`
	// Supervisor is the path of the nodesupervisor program.
	Supervisor string `toml:"supervisor" comment:"The nodesupervisor program; empty means the one beside nodeagent."`
	// MaxLogLine is where a line of a container's log is split, in bytes.
	MaxLogLine int64 `toml:"max_log_line" comment:"The longest line of a container's log, in bytes; a longer one is split."`
	// LogLevel is a logrus level.
	LogLevel string `toml:"log_level" comment:"trace, debug, info, warning or error."`
	// Handlers are runtime handlers beside the one that is always there, by
	// name.
	Handlers map[string]Handler `toml:"handlers,omitempty" comment:"Runtime handlers that a RuntimeClass may name."`
}

// Handler is a runtime handler: what its pods have of their own.
type Handler struct {
	// Network is a folder of CNI configurations in place of CNIConfDir, or the
	// name of a configuration in it; empty means what other pods get.
	Network string `toml:"network,omitempty" comment:"A folder in place of cni_conf_dir, or the name of a configuration in it."`
	// Snapshotter is the one that images for its pods are unpacked with; empty
	// means the usual one.
	Snapshotter string `toml:"snapshotter,omitempty" comment:"How layers of its pods' images are kept, if not as the others'."`
	// PidsLimit limits the tasks of each of its containers that names no limit
	// of its own; zero sets none.
	PidsLimit int64 `toml:"pids_limit,omitempty" comment:"Tasks of each of its containers, where nothing else is said; 0 for no limit."`
	// NoHostDevices keeps the host's devices from its privileged containers.
	NoHostDevices bool `toml:"no_host_devices,omitempty" comment:"Privileged containers get no devices but those they name."`
}

// defaultConfig is what holds where nothing is said.
func defaultConfig() Config {
	return Config{
		Root:           "/var/lib/nodeagent",
		State:          "/run/nodeagent",
		Listen:         "unix:///run/nodeagent/nodeagent.sock",
		StreamAddress:  "127.0.0.1:0",
		CertsDirs:      []string{"/etc/nodeagent/certs.d", "/etc/containerd/certs.d"},
		CNIConfDir:     "/etc/cni/net.d",
		CNIBinDirs:     []string{"/opt/cni/bin"},
		CDISpecDirs:    slices.Clone(cdidevice.DefaultDirs),
		BuiltinPlugins: true,
		Snapshotter:    overlayName,
		PinnedImages:   []string{},
		CgroupDriver:   "cgroupfs",
		CgroupParent:   "/nodeagent",
		MaxLogLine:     16 << 10,
		LogLevel:       "info",
	}
}

// readConfig reads path over the defaults. An unknown key is an error that
// names its line and the key that may have been meant.
func readConfig(path string) (Config, error) {
	cfg := defaultConfig()
	f, err := os.Open(path)
	if err != nil {
		return cfg, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxConfigSize+1))
	if err != nil {
		return cfg, fmt.Errorf("read configuration %s: %w", path, err)
	}
	if len(raw) > maxConfigSize {
		return cfg, fmt.Errorf("read configuration %s: larger than %d bytes", path, maxConfigSize)
	}
	if err := parseConfig(raw, &cfg); err != nil {
		return cfg, fmt.Errorf("%s: %w", path, err)
	}
	return cfg, nil
}

// typeWords are Go's types as a person calls them.
var typeWords = map[string]string{"[]string": "a list of strings", "bool": "true or false", "int64": "a number"}

// wrongType is how the library says that a value is of another type.
var wrongType = regexp.MustCompile(`cannot (?:decode|store) (?:a )?TOML (\S+) (?:in|into) .* of type (\S+)$`)

func parseConfig(raw []byte, cfg *Config) error {
	err := toml.NewDecoder(bytes.NewReader(raw)).DisallowUnknownFields().Decode(cfg)
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		first := strict.Errors[0]
		line, _ := first.Position()
		return fmt.Errorf("line %d: unknown key %q%s", line, strings.Join(first.Key(), "."), suggestion(first.Key()))
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		line, column := decode.Position()
		if found := wrongType.FindStringSubmatch(decode.Error()); found != nil {
			return fmt.Errorf("line %d, column %d: %s: %s belongs there, and it is of type %s", line, column,
				strings.Join(decode.Key(), "."), cmp.Or(typeWords[found[2]], "a "+found[2]), found[1])
		}
		return fmt.Errorf("line %d, column %d: %w", line, column, decode)
	}
	return err
}

// validate refuses what cannot work, naming the key.
func (c *Config) validate() error {
	for key, path := range map[string]string{"root": c.Root, "state": c.State, "cni_conf_dir": c.CNIConfDir} {
		if !filepath.IsAbs(path) || filepath.Clean(path) == "/" {
			return fmt.Errorf("%s: %q is not an absolute path below /", key, path)
		}
	}
	for key, paths := range map[string][]string{"certs_dirs": c.CertsDirs, "cni_bin_dirs": c.CNIBinDirs, "cdi_spec_dirs": c.CDISpecDirs} {
		for _, path := range paths {
			if !filepath.IsAbs(path) {
				return fmt.Errorf("%s: %q is not an absolute path", key, path)
			}
		}
	}
	if within(c.Root, c.State) || within(c.State, c.Root) {
		return fmt.Errorf("root %s and state %s: one must not lie in the other", c.Root, c.State)
	}
	if _, err := c.socketPath(); err != nil {
		return err
	}
	for key, address := range map[string]string{"stream_address": c.StreamAddress, "metrics_address": c.MetricsAddress} {
		if _, _, err := net.SplitHostPort(address); address != "" && err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if err := c.validateSnapshotters(); err != nil {
		return err
	}
	if err := imageservice.CheckPinned(c.PinnedImages); err != nil {
		return fmt.Errorf("pinned_images: %w", err)
	}
	if !slices.Contains([]string{"cgroupfs", "systemd"}, c.CgroupDriver) {
		return fmt.Errorf("cgroup_driver: %q is neither cgroupfs nor systemd", c.CgroupDriver)
	}
	if err := c.validateCgroupParent(); err != nil {
		return err
	}
	if c.MaxLogLine < minLogLine || c.MaxLogLine > maxLogLine {
		return fmt.Errorf("max_log_line: %d is not between %d and %d", c.MaxLogLine, minLogLine, maxLogLine)
	}
	if _, err := logrus.ParseLevel(c.LogLevel); err != nil {
		return fmt.Errorf("log_level: %q is not trace, debug, info, warning or error", c.LogLevel)
	}
	for name, handler := range c.Handlers {
		if !handlerName.MatchString(name) {
			return fmt.Errorf("handlers: %q is no name of a runtime handler", name)
		}
		if strings.Contains(handler.Network, "/") && !filepath.IsAbs(handler.Network) {
			return fmt.Errorf("handlers.%s.network: %q is neither an absolute path nor a name", name, handler.Network)
		}
		if handler.PidsLimit < 0 {
			return fmt.Errorf("handlers.%s.pids_limit: %d is negative", name, handler.PidsLimit)
		}
	}
	return nil
}

// settleCgroupParent makes the path of the slice that is meant, where systemd
// has the cgroups; the default means a slice there.
func (c *Config) settleCgroupParent() {
	if c.CgroupDriver != string(cgroups.Systemd) {
		return
	}
	if c.CgroupParent == defaultConfig().CgroupParent {
		c.CgroupParent += ".slice"
	}
	if dir, err := cgroups.SlicePath(c.CgroupParent); err == nil {
		c.CgroupParent = dir
	}
}

func (c *Config) validateCgroupParent() error {
	if c.CgroupDriver == string(cgroups.Systemd) {
		if _, err := cgroups.SlicePath(c.CgroupParent); err != nil {
			return fmt.Errorf("cgroup_parent: %w; the systemd cgroup driver needs one", err)
		}
		return nil
	}
	if !strings.HasPrefix(c.CgroupParent, "/") || strings.Contains(c.CgroupParent, "..") || c.CgroupParent == "/" {
		return fmt.Errorf("cgroup_parent: %q is not a path such as /nodeagent", c.CgroupParent)
	}
	return nil
}

// handlerName is what Kubernetes allows as a RuntimeClass's handler.
var handlerName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// handlerNames lists the handlers, in order.
func (c *Config) handlerNames() []string { return slices.Sorted(maps.Keys(c.Handlers)) }

// handlerDefaults are what the handlers' containers have of their own.
func (c *Config) handlerDefaults() map[string]sandbox.Handler {
	defaults := map[string]sandbox.Handler{}
	for name, handler := range c.Handlers {
		defaults[name] = sandbox.Handler{PidsLimit: handler.PidsLimit, NoHostDevices: handler.NoHostDevices}
	}
	return defaults
}

// handlerNetworks are the handlers' networks, of those that have one.
func (c *Config) handlerNetworks() map[string]string {
	networks := map[string]string{}
	for name, handler := range c.Handlers {
		if handler.Network != "" {
			networks[name] = handler.Network
		}
	}
	return networks
}

// maxSocketPath is sun_path's size less its final zero (unix(7)).
const maxSocketPath = 107

// socketPath is Listen as a path.
func (c *Config) socketPath() (string, error) {
	path := strings.TrimPrefix(c.Listen, "unix://")
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("listen: %q is not unix:// and an absolute path", c.Listen)
	}
	if len(path) > maxSocketPath {
		return "", fmt.Errorf("listen: %s is longer than the %d bytes of a socket's path", path, maxSocketPath)
	}
	return path, nil
}

// supervisorBinary is the nodesupervisor to start: the one named, or the one
// beside this program.
func (c *Config) supervisorBinary() (string, error) {
	if c.Supervisor != "" {
		// It is started in another folder.
		return filepath.Abs(c.Supervisor)
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find nodesupervisor: %w", err)
	}
	return filepath.Join(filepath.Dir(self), "nodesupervisor"), nil
}

func within(parent, path string) bool {
	rel, err := filepath.Rel(parent, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
