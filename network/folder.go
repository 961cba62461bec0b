package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/atomicfile"
	"github.com/nodeagent/nodeagent/network/builtin"
)

const (
	// maxConfig bounds a configuration file.
	maxConfig = 1 << 20
	// maxConfigs bounds the files that are looked at.
	maxConfigs = 256
	// settled is the age from which a file's time tells that it has not
	// changed since; younger ones are read each time.
	settled = 2 * time.Second
)

// network is a configuration ready for use.
type network struct {
	list *libcni.NetworkConfigList
	// file is where it came from; empty for the embedded one.
	file string
	// builtin are the types of plugins that are carried out in process.
	builtin map[string]bool
	// why tells of the others that could have been, what spoke against it.
	why map[string]error
	// needsRanges says that no range of addresses is configured, so that the
	// node's pod CIDRs must be known.
	needsRanges bool
	// volatile says that a reboot takes away all that a pod has of it.
	volatile bool
}

// inProcess reports whether nothing is executed for the network.
func (n *network) inProcess() bool {
	for _, plugin := range n.list.Plugins {
		if ipam := plugin.Network.IPAM.Type; !n.builtin[plugin.Network.Type] || ipam != "" && !n.builtin[ipam] {
			return false
		}
	}
	return true
}

// folder is what a folder of configurations held when it was last read.
type folder struct {
	stamp string
	// networks are the good configurations, in the order of their files.
	networks []*network
	// problems tell, by file, what is wrong.
	problems []string
	// unsettled is the error of a bad file before all good ones that somebody may be
	// writing just now: no pod is to get another network because of that.
	unsettled error
	// empty is true when there is no file at all.
	empty bool
}

// read returns what a folder holds, from memory when nothing has changed: one
// readdir and a stat of each file.
func (m *Manager) read(dir string) (*folder, error) {
	m.folderMu.Lock()
	defer m.folderMu.Unlock()
	files, stamp, err := listConfigs(dir)
	if err != nil {
		return nil, fmt.Errorf("read network configurations: %w: %w", err, errdefs.ErrUnavailable)
	}
	if known := m.folders[dir]; known != nil && stamp != "" && known.stamp == stamp {
		return known, nil
	}
	f := &folder{stamp: stamp, empty: len(files) == 0}
	for _, file := range files {
		n, err := m.load(file)
		if err != nil {
			f.problems = append(f.problems, fmt.Sprintf("%s: %v", file, err))
			if isYoung(file) && len(f.networks) == 0 && f.unsettled == nil {
				f.unsettled = fmt.Errorf("%s may be being written: %w: %w", file, err, errdefs.ErrUnavailable)
			}
			continue
		}
		f.networks = append(f.networks, n)
	}
	m.folders[dir] = f
	return f, nil
}

// listConfigs lists the configuration files in order, and a stamp that is
// another one when one of them changed; it is empty when a file is too young
// for its time to tell.
func listConfigs(dir string) (files []string, stamp string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "none", nil
	}
	if err != nil {
		return nil, "", err
	}
	var text strings.Builder
	young := false
	note := func(info fs.FileInfo) {
		changed, inode := changeOf(info)
		fmt.Fprintf(&text, "%s %d %d %d\n", info.Name(), info.Size(), inode, changed.UnixNano())
		young = young || time.Since(changed) < settled
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		if info.IsDir() {
			note(info)                      // it may hold plugins of a configuration
			plugins, _ := pluginFiles(path) // loading it tells what is wrong
			for _, plugin := range plugins {
				if info, err := os.Stat(plugin); err == nil {
					note(info)
				}
			}
			continue
		}
		if slices.Contains([]string{".conflist", ".conf", ".json"}, filepath.Ext(entry.Name())) && len(files) < maxConfigs {
			note(info)
			files = append(files, path)
		}
	}
	if young {
		return files, "", nil
	}
	return files, "files\n" + text.String(), nil
}

// changeOf is when a file was changed last, and its inode's number. A file that was
// moved here keeps its own time, but not that of its inode.
func changeOf(info fs.FileInfo) (changed time.Time, inode uint64) {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(stat.Ctim.Unix()), stat.Ino
	}
	return info.ModTime(), 0
}

// isYoung says whether a file was changed a moment ago.
func isYoung(file string) bool {
	info, err := os.Stat(file)
	if err != nil {
		return true // it was there
	}
	changed, _ := changeOf(info)
	return time.Since(changed).Abs() < settled // a clock that was set back makes nothing young for ever
}

// load reads and checks one file.
func (m *Manager) load(file string) (*network, error) {
	data, err := readRegular(file)
	if err != nil {
		return nil, err
	}
	list, err := parseConfig(data)
	if err != nil {
		return nil, err
	}
	if !list.LoadOnlyInlinedPlugins && filepath.Ext(file) == ".conflist" {
		if err := addPlugins(list, filepath.Join(filepath.Dir(file), list.Name)); err != nil {
			return nil, err
		}
	}
	n, err := prepare(list, m.cfg.BuiltinPlugins)
	if err != nil {
		return nil, err
	}
	n.file = file
	return n, nil
}

// readRegular reads a bounded regular file; a FIFO does not block it.
func readRegular(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	f.Close()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("not a regular file: %w", errdefs.ErrInvalidArgument)
	}
	return atomicfile.Read(path, maxConfig)
}

// addPlugins appends the plugins that a configuration of CNI 1.1 keeps in
// files of their own, in a folder of the network's name.
func addPlugins(list *libcni.NetworkConfigList, dir string) error {
	files, err := pluginFiles(dir)
	if err != nil {
		return err
	}
	for _, path := range files {
		data, err := readRegular(path)
		if err != nil {
			return err
		}
		plugin, err := libcni.NetworkPluginConfFromBytes(data)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
		list.Plugins = append(list.Plugins, plugin)
	}
	return nil
}

// pluginFiles lists the files of plugins in a folder, which need not be there.
func pluginFiles(dir string) ([]string, error) {
	entries, err := readDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, entry := range entries {
		if filepath.Ext(entry.Name()) == ".conf" {
			files = append(files, filepath.Join(dir, entry.Name()))
		}
	}
	if len(files) > maxConfigs {
		return nil, fmt.Errorf("%s holds more than %d plugins: %w", dir, maxConfigs, errdefs.ErrInvalidArgument)
	}
	return files, nil
}

// parseConfig reads a configuration: a list, or a single plugin of former
// versions.
func parseConfig(data []byte) (*libcni.NetworkConfigList, error) {
	var head struct {
		Name       string           `json:"name"`
		CNIVersion string           `json:"cniVersion"`
		Type       string           `json:"type"`
		Plugins    *json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, err
	}
	if err := utils.ValidateNetworkName(head.Name); err != nil {
		return nil, fmt.Errorf("name %q: %w", head.Name, err)
	}
	list, err := parseListOrPlugin(data, head.Type != "" && head.Plugins == nil)
	if err != nil {
		return nil, err
	}
	if list.CNIVersion != "" && !slices.Contains(version.All.SupportedVersions(), list.CNIVersion) {
		return nil, fmt.Errorf("cniVersion %q is not one of %s", list.CNIVersion, strings.Join(version.All.SupportedVersions(), ", "))
	}
	return list, nil
}

func parseListOrPlugin(data []byte, single bool) (*libcni.NetworkConfigList, error) {
	if !single {
		return libcni.NetworkConfFromBytes(data)
	}
	plugin, err := libcni.NetworkPluginConfFromBytes(data)
	if err != nil {
		return nil, err
	}
	list, err := libcni.ConfListFromConf(plugin)
	if err != nil {
		return nil, err
	}
	list.LoadOnlyInlinedPlugins = true
	return list, nil
}

// typePattern keeps a plugin's type from being a path (CVE-2021-20206).
var typePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

func checkType(name string) error {
	if !typePattern.MatchString(name) || strings.Contains(name, "..") {
		return fmt.Errorf("plugin type %q is not a plain file name: %w", name, errdefs.ErrInvalidArgument)
	}
	return nil
}

// prepare checks the plugins of a list, decides which of them are carried out
// in process, and makes the list's bytes hold all of it.
func prepare(list *libcni.NetworkConfigList, builtins bool) (*network, error) {
	if len(list.Plugins) == 0 {
		return nil, fmt.Errorf("no plugins: %w", errdefs.ErrInvalidArgument)
	}
	n := &network{list: list, builtin: map[string]bool{}, why: map[string]error{}}
	for i, plugin := range list.Plugins {
		types := []string{plugin.Network.Type}
		if ipam := plugin.Network.IPAM.Type; ipam != "" {
			types = append(types, ipam)
		}
		for _, name := range types {
			if err := checkType(name); err != nil {
				return nil, err
			}
			if builtins {
				if err := n.consider(name, list, plugin); err != nil {
					return nil, fmt.Errorf("plugin %d: %w", i+1, err)
				}
			}
		}
	}
	for name := range n.why {
		delete(n.builtin, name)
	}
	data, err := flatten(list)
	if err != nil {
		return nil, err
	}
	list.Bytes = data
	return n, nil
}

// anyRange stands for those that the runtime will name.
var anyRange = netip.MustParsePrefix("10.0.0.0/24")

// consider decides whether a type of plugin is carried out in process. What a
// built-in plugin finds malformed is an error, unless the runtime is to fill
// it in.
func (n *network) consider(name string, list *libcni.NetworkConfigList, plugin *libcni.PluginConfig) error {
	conf, err := libcni.InjectConf(plugin, map[string]any{"name": list.Name, "cniVersion": list.CNIVersion})
	if err != nil {
		return err
	}
	err = builtin.Supports(name, conf.Bytes)
	if errdefs.IsInvalidArgument(err) && plugin.Network.Capabilities["ipRanges"] {
		if withRanges, _ := builtin.WithRanges(conf.Bytes, anyRange); builtin.Supports(name, withRanges) == nil {
			n.needsRanges, err = true, nil
		}
	}
	switch {
	case err == nil:
		n.builtin[name] = true
	case errdefs.IsInvalidArgument(err):
		return err
	default:
		n.why[name] = err
	}
	return nil
}

// flatten writes a list with all its plugins, so that it can be used again
// when the files are other ones.
func flatten(list *libcni.NetworkConfigList) ([]byte, error) {
	plugins := make([]json.RawMessage, len(list.Plugins))
	for i, plugin := range list.Plugins {
		plugins[i] = plugin.Bytes
	}
	return json.Marshal(map[string]any{
		"name": list.Name, "cniVersion": list.CNIVersion, "disableCheck": list.DisableCheck,
		"disableGC": list.DisableGC, "loadOnlyInlinedPlugins": true, "plugins": plugins,
	})
}

// current returns the network for new pods of a runtime handler: what is
// configured for it, else the first good file, or the embedded network when
// there is no file.
func (m *Manager) current(handler string) (*network, error) {
	source := m.cfg.Handlers[handler]
	if source == "" {
		return m.ordinary()
	}
	dir, name := m.cfg.ConfDir, source
	if filepath.IsAbs(source) {
		dir, name = source, ""
	}
	f, err := m.read(dir)
	if err != nil {
		return nil, fmt.Errorf("runtime handler %s: %w", handler, err)
	}
	if name == "" && f.unsettled != nil {
		return nil, fmt.Errorf("runtime handler %s: %w", handler, f.unsettled)
	}
	for _, n := range f.networks {
		if name == "" || n.list.Name == name {
			return n, nil
		}
	}
	if name != "" {
		name = " named " + name
	}
	return nil, fmt.Errorf("runtime handler %s: no usable network configuration%s in %s%s: %w", handler, name, dir, reasons(f.problems), errdefs.ErrUnavailable)
}

func (m *Manager) ordinary() (*network, error) {
	f, err := m.read(m.cfg.ConfDir)
	if err != nil {
		return nil, err
	}
	if f.unsettled != nil {
		return nil, f.unsettled
	}
	if len(f.networks) > 0 {
		return f.networks[0], nil
	}
	if !f.empty {
		return nil, fmt.Errorf("no usable network configuration in %s%s: %w", m.cfg.ConfDir, reasons(f.problems), errdefs.ErrUnavailable)
	}
	if m.cfg.NoDefaultNetwork {
		return nil, fmt.Errorf("no network configuration in %s: %w", m.cfg.ConfDir, errdefs.ErrUnavailable)
	}
	return m.defaultNetwork()
}

func reasons(problems []string) string {
	if len(problems) == 0 {
		return ""
	}
	return ": " + strings.Join(problems, "; ")
}

// handlers lists the runtime handlers with a network of their own, and the
// empty one for all others.
func (m *Manager) handlers() []string {
	return append([]string{""}, slices.Sorted(maps.Keys(m.cfg.Handlers))...)
}
