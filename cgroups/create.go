package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Create makes a cgroup in every hierarchy, with the cgroups above it, and
// sets limits; nil sets none. One that exists is taken over, and only its
// limits are set. On error the cgroups that this call made are removed.
func (m *Manager) Create(ctx context.Context, path string, res *specs.LinuxResources) error {
	p, err := m.clean(path)
	if err != nil {
		return err
	}
	if err := checkResources(res); err != nil {
		return err
	}
	if m.systemd != nil && strings.HasSuffix(p, ".slice") {
		if err := m.createSlice(ctx, p, res); err != nil {
			return fmt.Errorf("create slice %s: %w", path, err)
		}
		return nil
	}
	made, err := m.mkdirAll(ctx, p)
	if err == nil && res != nil {
		err = m.limit(p, res, nil)
	}
	if err != nil {
		for _, dir := range slices.Backward(made) {
			_ = unix.Rmdir(dir)
		}
		return fmt.Errorf("create cgroup %s: %w", path, err)
	}
	return nil
}

// createSlice has systemd make a slice. Those above it stay on error.
func (m *Manager) createSlice(ctx context.Context, p string, res *specs.LinuxResources) error {
	there := m.exists(p)
	err := m.systemd.create(ctx, p, res)
	if err == nil {
		err = m.limitSlice(ctx, p, res)
	}
	if err != nil && !there {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
		defer cancel()
		_ = m.systemd.remove(ctx, p)
	}
	return err
}

// mkdirAll makes a cgroup in all hierarchies and lists what it made.
func (m *Manager) mkdirAll(ctx context.Context, p string) (made []string, err error) {
	for _, h := range m.hierarchies {
		if err := ctx.Err(); err != nil {
			return made, err
		}
		dirs, err := h.mkdir(p)
		made = append(made, dirs...)
		if err != nil {
			return made, err
		}
	}
	return made, nil
}

// mkdir makes a cgroup and those above it that are missing, ready to hold
// processes, and lists those it made, parents first.
func (h *hierarchy) mkdir(p string) (made []string, err error) {
	if p == "/" {
		return nil, nil
	}
	err = mkdir(h.dir(p))
	if errors.Is(err, unix.ENOENT) {
		if made, err = h.mkdir(path.Dir(p)); err != nil {
			return made, err
		}
		err = mkdir(h.dir(p))
	}
	switch {
	case err == nil:
		made = append(made, h.dir(p))
	case !errors.Is(err, unix.EEXIST):
		return made, err
	}
	if h.v2 {
		return made, h.enable(path.Dir(p))
	}
	if h.has("cpuset") {
		return made, h.inheritCpuset(p)
	}
	return made, nil
}

func mkdir(dir string) error {
	for {
		err := unix.Mkdir(dir, 0o755)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "mkdir", Path: dir, Err: err}
		}
		return nil
	}
}

// inheritCpuset fills in what the kernel leaves empty in a new cgroup of v1:
// no process can be put into one without CPUs or memory nodes (cpusets(7)).
// It goes up as far as there is nothing to take over.
func (h *hierarchy) inheritCpuset(p string) error {
	for _, file := range []string{"/cpuset.cpus", "/cpuset.mems"} {
		own, err := readFile(h.dir(p) + file)
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(own)) != "" {
			continue
		}
		above := path.Dir(p)
		if above != "/" {
			if err := h.inheritCpuset(above); err != nil {
				return err
			}
		}
		list, err := readFile(strings.TrimSuffix(h.dir(above), "/") + file)
		if err != nil {
			return err
		}
		if err := writeFile(h.dir(p)+file, strings.TrimSpace(string(list))); err != nil {
			return err
		}
	}
	return nil
}

// enable turns on in the cgroups below p every controller to be had, from the
// root down. One that cannot be is left out: a limit that needs it says so.
func (h *hierarchy) enable(p string) error {
	dir := strings.TrimSuffix(h.dir(p), "/")
	has, err := readFile(dir + "/cgroup.subtree_control")
	if err != nil {
		return err
	}
	on := strings.Fields(string(has))
	var missing []string
	for _, c := range h.controllers {
		if !slices.Contains(on, c) {
			missing = append(missing, "+"+c)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if p != "/" {
		if err := h.enable(path.Dir(p)); err != nil {
			return err
		}
	}
	if writeFile(dir+"/cgroup.subtree_control", strings.Join(missing, " ")) == nil {
		return nil
	}
	// One that is refused refuses all of a write.
	for _, c := range missing {
		_ = writeFile(dir+"/cgroup.subtree_control", c)
	}
	return nil
}
