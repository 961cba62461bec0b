package network

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"

	"github.com/nodeagent/nodeagent/internal/turns"
	"github.com/nodeagent/nodeagent/network/builtin"
	"github.com/nodeagent/nodeagent/network/nat"
)

// InterfaceName is the name of every pod's main interface.
const InterfaceName = "eth0"

// Defaults of Config.
const (
	DefaultConfDir       = "/etc/cni/net.d"
	DefaultBinDir        = "/opt/cni/bin"
	DefaultPluginTimeout = time.Minute
)

// Config says where things are. The zero value of each field that is not a
// folder of ours has a meaning.
type Config struct {
	// ConfDir holds CNI configurations; empty means DefaultConfDir. It need
	// not be there.
	ConfDir string
	// BinDirs are searched for plugins; empty means DefaultBinDir.
	BinDirs []string
	// StateDir is what a reboot empties: all records of the embedded network,
	// its addresses too, and results of plugins that are carried out in
	// process. It must be set.
	StateDir string
	// RootDir is what a reboot keeps: intents, libcni's cache, the choice of
	// the embedded network's subnets. It must be set.
	RootDir string
	// Instance tells agents on one machine apart, in the names of the default
	// network's bridge and of the nftables table: letters, digits, and one of
	// "_.-", at most 64. It may be empty for the only agent.
	Instance string
	// BuiltinPlugins carries the reference plugins out in process.
	BuiltinPlugins bool
	// NoDefaultNetwork makes an empty ConfDir an error, as a node wants it
	// whose network is configured by a pod that is yet to come. Otherwise
	// pods get the embedded network then.
	NoDefaultNetwork bool
	// SharedDir is where this machine's runtimes find one another; empty means
	// the package's SharedDir.
	SharedDir string
	// Handlers name the network of a runtime handler's pods: an absolute path
	// is a folder in place of ConfDir, with its first good configuration used;
	// anything else is the name of a configuration in ConfDir. Pods of other
	// handlers get what those without one get.
	Handlers map[string]string
	// MaxConcurrent bounds the plugins that are executed at a time; zero means
	// twice the processors.
	MaxConcurrent int
	// PluginTimeout bounds each execution of a plugin; zero means
	// DefaultPluginTimeout.
	PluginTimeout time.Duration
}

var instancePattern = regexp.MustCompile(`^[A-Za-z0-9_.-]{0,64}$`)

func (c *Config) complete() error {
	if c.RootDir == "" || c.StateDir == "" {
		return fmt.Errorf("network: RootDir and StateDir must be set: %w", errdefs.ErrInvalidArgument)
	}
	if !instancePattern.MatchString(c.Instance) {
		return fmt.Errorf("network: instance %q: %w", c.Instance, errdefs.ErrInvalidArgument)
	}
	for handler, source := range c.Handlers {
		if source == "" || handler == "" {
			return fmt.Errorf("network: handler %q: network %q: both must be named: %w", handler, source, errdefs.ErrInvalidArgument)
		}
	}
	if c.SharedDir == "" {
		c.SharedDir = SharedDir
	}
	if c.ConfDir == "" {
		c.ConfDir = DefaultConfDir
	}
	if len(c.BinDirs) == 0 {
		c.BinDirs = []string{DefaultBinDir}
	}
	if c.MaxConcurrent <= 0 {
		c.MaxConcurrent = 2 * runtime.NumCPU()
	}
	if c.PluginTimeout <= 0 {
		c.PluginTimeout = DefaultPluginTimeout
	}
	return nil
}

// tableName is the nftables table's.
func (c *Config) tableName() string {
	if c.Instance == "" {
		return "nodeagent"
	}
	return "nodeagent-" + c.Instance
}

// Manager wires pods. Its methods may be called side by side; calls for the
// same pod wait for each other.
type Manager struct {
	cfg     Config
	table   *nat.Table
	plugins *builtin.Plugins
	pods    turns.Turns
	// slots holds a token for each plugin that is being executed.
	slots chan struct{}
	// reaper waits for links of pods to go.
	reaper *reaper
	// failed is how the last pod was wired, if not well.
	failed atomic.Pointer[Failure]

	// gate is held for reading by each Add, and for writing by what must not
	// see one half-way.
	gate sync.RWMutex

	folderMu sync.Mutex
	folders  map[string]*folder // by path

	announceMu sync.Mutex
	announced  bool

	fallbackMu sync.Mutex
	fallback   *fallback
}

// New makes the folders it needs and reads what a former agent
// left in the nftables table of the calling thread's network namespace, in
// which it then works. Call GC before serving, and Close in the end.
func New(cfg Config) (*Manager, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	for _, dir := range []string{"intents", "cni-cache"} {
		for _, root := range []string{cfg.RootDir, cfg.StateDir} {
			if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
				return nil, fmt.Errorf("network: %w", err)
			}
		}
	}
	table, err := nat.Open(cfg.tableName())
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	m := &Manager{
		cfg:     cfg,
		table:   table,
		plugins: builtin.New(table),
		slots:   make(chan struct{}, cfg.MaxConcurrent),
		folders: map[string]*folder{},
	}
	m.plugins.Neighbours = m.neighbours
	if left, err := readDir(m.intentDirs()[1]); err != nil || len(left) > 0 {
		if err := m.announce(); err != nil {
			return nil, fmt.Errorf("network: %w", err)
		}
	}
	m.reaper = newReaper(m.plugins.Reap, m.removeIntent)
	return m, nil
}

// Close waits a bounded time for links that are being deleted, and lets go of
// everything in memory. What pods have stays.
func (m *Manager) Close() {
	m.reaper.close()
	m.unannounce()
	m.table.Close()
}

// libcni returns the library's object for a network, which runs each plugin
// the way the network says. Results of executed plugins are kept over a reboot,
// since such plugins may want to see them in a DEL afterwards.
func (m *Manager) libcni(n *network) *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(m.cfg.BinDirs, m.cacheDir(n), &executor{m, n.builtin})
}

func (m *Manager) cacheDir(n *network) string {
	root := m.cfg.RootDir
	if n.inProcess() {
		root = m.cfg.StateDir
	}
	return filepath.Join(root, "cni-cache")
}

// lockPod waits for the turn at a pod; the caller calls unlock when done.
func (m *Manager) lockPod(ctx context.Context, podID string) (unlock func(), err error) {
	unlock, err = m.pods.Wait(ctx, podID)
	if err != nil {
		return nil, fmt.Errorf("network of pod %s: another operation is under way: %w", podID, err)
	}
	return unlock, nil
}
