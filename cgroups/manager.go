package cgroups

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/systemd"
)

// DefaultRoot is where hosts mount cgroups.
const DefaultRoot = "/sys/fs/cgroup"

// Config says which cgroups a Manager has to do with.
type Config struct {
	// Driver is who makes cgroups; empty means Cgroupfs.
	Driver Driver
	// Root is the mount point of cgroup v2, or the folder below which v1's
	// hierarchies are mounted; empty means DefaultRoot. Hierarchies mounted
	// elsewhere are left alone.
	Root string
}

// Manager makes, limits, reads and removes cgroups. It keeps no state of any
// of them but for the open files of those read a moment ago, which Close
// closes. Its methods are safe for concurrent use.
//
// Paths are relative to each hierarchy's root and name one cgroup in all
// hierarchies: "/kubepods/burstable/pod123". With the systemd driver a slice
// is named by its unit ("kubepods-burstable-pod123.slice") and a scope in it
// by "kubepods-burstable-pod123.slice/x.scope" or as libcontainer does
// ("kubepods-burstable-pod123.slice:prefix:name"). The
// root itself is never made, limited, killed or removed, and no path may
// contain "..": both are errdefs.ErrInvalidArgument.
//
// A cgroup that does not exist is errdefs.ErrNotFound, except where a method
// says otherwise; a limit for which the host lacks the controller is
// errdefs.ErrFailedPrecondition; other failures carry the file's path.
type Manager struct {
	driver      Driver
	mode        Mode
	hierarchies []*hierarchy
	// byController finds the hierarchy a controller is attached to.
	byController map[string]*hierarchy
	// hugepages are the host's page sizes such as "2MB".
	hugepages []string
	// systemd makes slices; nil with the Cgroupfs driver.
	systemd unitMaker
	keep    *keeper
	// own is this process's cgroup.procs, which warm writes to.
	own  string
	warm warmer
}

// hierarchy is a mounted tree of cgroups.
type hierarchy struct {
	mountpoint string
	// controllers are those attached; a named v1 hierarchy has none.
	controllers []string
	v2          bool
}

func (h *hierarchy) has(controller string) bool {
	return slices.Contains(h.controllers, controller)
}

// dir gives the absolute path of a cgroup in the hierarchy. path is clean and
// begins with a slash.
func (h *hierarchy) dir(path string) string {
	return h.mountpoint + path
}

// Detect says how the host mounts cgroups.
func Detect() Mode {
	hierarchies, err := discover(DefaultRoot)
	if err != nil {
		return V1
	}
	return modeOf(hierarchies)
}

func modeOf(hierarchies []*hierarchy) Mode {
	var v1, v2 bool
	for _, h := range hierarchies {
		v1 = v1 || !h.v2
		v2 = v2 || h.v2
	}
	switch {
	case v2 && v1:
		return Hybrid
	case v2:
		return V2
	}
	return V1
}

// New finds the hierarchies mounted below the configured root. It makes
// nothing. It fails with errdefs.ErrFailedPrecondition where there are none,
// or where the systemd driver is asked for and systemd does not run.
func New(cfg Config) (*Manager, error) {
	root := cfg.Root
	if root == "" {
		root = DefaultRoot
	}
	hierarchies, err := discover(filepath.Clean(root))
	if err != nil {
		return nil, err
	}
	if len(hierarchies) == 0 {
		return nil, fmt.Errorf("find cgroups: nothing is mounted at %s: %w", root, errdefs.ErrFailedPrecondition)
	}
	m := newManager(hierarchies)
	m.hugepages = oci.HugePageSizes()
	switch cfg.Driver {
	case "", Cgroupfs:
	case Systemd:
		if !systemd.IsRunningSystemd() {
			return nil, fmt.Errorf("use the systemd cgroup driver: systemd does not run on this host: %w", errdefs.ErrFailedPrecondition)
		}
		m.driver, m.systemd = Systemd, newUnitMaker(m.mode)
	default:
		return nil, fmt.Errorf("cgroup driver %q is not %s or %s: %w", cfg.Driver, Cgroupfs, Systemd, errdefs.ErrInvalidArgument)
	}
	return m, nil
}

func newManager(hierarchies []*hierarchy) *Manager {
	m := &Manager{
		driver: Cgroupfs, mode: modeOf(hierarchies), hierarchies: hierarchies,
		byController: make(map[string]*hierarchy), keep: newKeeper(), own: ownProcs(hierarchies),
	}
	for _, h := range hierarchies {
		for _, c := range h.controllers {
			m.byController[c] = h
		}
	}
	return m
}

// Close closes what is open. The Manager may be used further.
func (m *Manager) Close() {
	m.keep.close()
	m.warm.wg.Wait()
}

// Mode says how the hierarchies found are mounted.
func (m *Manager) Mode() Mode { return m.mode }

// Driver says who makes cgroups.
func (m *Manager) Driver() Driver { return m.driver }

// Controllers lists the controllers to be had, sorted.
func (m *Manager) Controllers() []string {
	out := make([]string, 0, len(m.byController))
	for c := range m.byController {
		out = append(out, c)
	}
	slices.Sort(out)
	return out
}

// Exists says whether a cgroup exists in any hierarchy. An invalid path does not.
func (m *Manager) Exists(path string) bool {
	p, err := m.clean(path)
	return err == nil && m.exists(p)
}

// exists is Exists for a clean path.
func (m *Manager) exists(p string) bool {
	for _, h := range m.hierarchies {
		if isDir(h.dir(p)) {
			return true
		}
	}
	return false
}

// Children names the cgroups directly below one, in any hierarchy, in order.
func (m *Manager) Children(path string) []string {
	p, err := m.clean(path)
	if err != nil {
		return nil
	}
	var names []string
	for _, h := range m.hierarchies {
		entries, err := os.ReadDir(h.dir(p))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Procs lists the processes of a cgroup and all below it, each once, in
// ascending order.
func (m *Manager) Procs(path string) ([]int, error) {
	p, err := m.clean(path)
	if err != nil {
		return nil, err
	}
	dir := m.tracker().dir(p)
	if !isDir(dir) {
		return nil, fmt.Errorf("list processes of cgroup %s: %w", path, errdefs.ErrNotFound)
	}
	pids, err := procsBelow(dir)
	if err != nil {
		return nil, fmt.Errorf("list processes of cgroup %s: %w", path, err)
	}
	return pids, nil
}

// tracker is the hierarchy where every process of ours is to be found:
// libcontainer puts a process into all of them.
func (m *Manager) tracker() *hierarchy {
	for _, c := range []string{"freezer", "pids", "memory"} {
		if h := m.byController[c]; h != nil {
			return h
		}
	}
	return m.hierarchies[0]
}

// clean checks a path and gives it as a folder below a hierarchy's root.
func (m *Manager) clean(path string) (string, error) {
	dir := path
	if m.driver == Systemd && !strings.HasPrefix(path, "/") {
		var err error
		if dir, err = expandUnit(path); err != nil {
			return "", err
		}
	}
	for part := range strings.SplitSeq(dir, "/") {
		if part == ".." || strings.ContainsAny(part, "\x00\n") {
			return "", fmt.Errorf("cgroup path %q is not one: %w", path, errdefs.ErrInvalidArgument)
		}
	}
	dir = filepath.Clean("/" + dir)
	if m.driver == Systemd && strings.HasSuffix(dir, ".slice") {
		return SlicePath(dir)
	}
	if dir == "/" {
		return "", fmt.Errorf("cgroup path %q is the root: %w", path, errdefs.ErrInvalidArgument)
	}
	return dir, nil
}
