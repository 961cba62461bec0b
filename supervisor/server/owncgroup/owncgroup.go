// Package owncgroup gives the supervisor a cgroup of its own in every
// hierarchy, so that nothing done to the agent's cgroup (a limit, a kill of the
// whole group) reaches it or its containers.
package owncgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// name is the last part of the group's path.
const name = "supervisor"

// Group is the cgroup this process has been put into.
type Group struct {
	// mounts are the hierarchies' mount points, path the group below each.
	mounts []string
	path   string
}

// Join makes parent/supervisor in every hierarchy and moves this process there.
// A hierarchy that refuses is left out, but none at all is an error. Below a
// slice it is a scope, which goes with this process.
func Join(parent string) (*Group, error) {
	if strings.HasSuffix(parent, sliceSuffix) {
		// Its name is of this process alone: the scope of another may be there still.
		scope := fmt.Sprintf("nodeagent-%s-%d%s", name, os.Getpid(), scopeSuffix)
		return nil, EnterScope(filepath.Join("/", parent, scope), os.Getpid())
	}
	mounts, err := hierarchies()
	if err != nil {
		return nil, fmt.Errorf("join own cgroup: %w", err)
	}
	g := &Group{path: filepath.Join("/", parent, name)}
	var errs []error
	for _, mount := range mounts {
		if err := join(mount, g.path); err != nil {
			errs = append(errs, err)
			continue
		}
		g.mounts = append(g.mounts, mount)
	}
	if len(g.mounts) == 0 && len(errs) > 0 {
		return nil, fmt.Errorf("join own cgroup %s: %w", g.path, errors.Join(errs...))
	}
	return g, nil
}

// Leave moves this process back to the root of every hierarchy and removes
// the group, and its parent when that is empty. A nil Group may leave.
func (g *Group) Leave() {
	if g == nil {
		return
	}
	for _, mount := range g.mounts {
		if err := Place(mount, os.Getpid()); err != nil {
			continue
		}
		os.Remove(filepath.Join(mount, g.path))
		os.Remove(filepath.Dir(filepath.Join(mount, g.path)))
	}
}

// Entrance is a cgroup, open for processes to be put into.
type Entrance struct {
	// Unified is the folder in cgroup v2; nil when it has none.
	Unified *os.File
	// Tasks are the files named so in hierarchies of cgroup v1. A process with
	// one thread that writes a zero to one has moved there without the
	// kernel waiting for all other processes.
	Tasks []*os.File
}

// Open opens the cgroup at path of every hierarchy that has it; none at all is an
// error.
func Open(path string) (e Entrance, err error) {
	mounts, err := hierarchies()
	if err != nil {
		return e, err
	}
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	for _, mount := range mounts {
		dir := filepath.Join(mount, filepath.Join("/", path))
		name, flags := dir, os.O_RDONLY|unix.O_DIRECTORY
		if !unified(mount) {
			name, flags = filepath.Join(dir, "tasks"), os.O_WRONLY
		}
		f, err := os.OpenFile(name, flags, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return e, fmt.Errorf("open cgroup %s: %w", path, err)
		}
		if name == dir {
			e.Unified = f
			continue
		}
		e.Tasks = append(e.Tasks, f)
	}
	if e.Unified == nil && len(e.Tasks) == 0 {
		return e, fmt.Errorf("open cgroup %s: %w", path, os.ErrNotExist)
	}
	return e, nil
}

// Close closes the files.
func (e Entrance) Close() {
	if e.Unified != nil {
		e.Unified.Close()
	}
	for _, f := range e.Tasks {
		f.Close()
	}
}

// Place puts a process into one cgroup directory.
func Place(dir string, pid int) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644)
}

// hierarchies returns the mount points of all cgroup hierarchies.
func hierarchies() ([]string, error) {
	infos, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return i.FSType != "cgroup" && i.FSType != "cgroup2", false
	})
	if err != nil {
		return nil, err
	}
	var mounts []string
	seen := map[string]bool{}
	for _, i := range infos {
		// The same hierarchy mounted twice counts once.
		key := i.FSType + " " + strconv.Itoa(i.Major) + ":" + strconv.Itoa(i.Minor)
		if !seen[key] {
			seen[key] = true
			mounts = append(mounts, i.Mountpoint)
		}
	}
	return mounts, nil
}

func join(mount, path string) error {
	dir := mount
	for _, part := range strings.Split(strings.Trim(path, "/"), "/") {
		parent := dir
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if err := inheritCPUSet(parent, dir); err != nil {
			return err
		}
	}
	return Place(dir, os.Getpid())
}

// inheritCPUSet fills the two files without which the cpuset controller of
// cgroup v1 lets no process into a group.
func inheritCPUSet(parent, dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := os.ReadFile(filepath.Join(dir, file))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(have)) > 0 {
			continue
		}
		if unified(dir) {
			return nil
		}
		want, err := os.ReadFile(filepath.Join(parent, file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), want, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// unified reports whether dir belongs to cgroup v2, where empty means inherited.
func unified(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}
