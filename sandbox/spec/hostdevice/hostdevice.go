// Package hostdevice looks up device nodes on the host for sandbox/spec,
// which does no I/O of its own.
package hostdevice

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/sandbox/spec"
)

const (
	// maxDevices bounds what is taken from one folder: a host with many
	// disks and terminals has some thousand.
	maxDevices = 16384
	// maxDepth bounds how far down a folder is looked through.
	maxDepth = 16
)

// skipped are entries of /dev that a container has of its own, or that are
// not the host's to give.
var skipped = []string{"pts", "shm", "mqueue", "fd", "console", ".lxc", ".lxd-mounts", ".udev"}

// List gives every device below dir, normally "/dev", for a privileged
// container, each with all permissions and where it is on the host. It
// follows no link. A device that vanishes meanwhile is left out.
func List(dir string) ([]spec.Device, error) {
	w := walker{from: dir, to: dir, permissions: "rwm", skip: skipped}
	if err := w.walk("", 0); err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	return w.found, nil
}

// Resolve looks up the devices of a container's configuration: links are
// followed, a folder stands for the devices below it as with List, no container path means
// the host's, and no permissions mean all. An error names the field and is
// errdefs.ErrInvalidArgument.
func Resolve(list []*runtime.Device) ([]spec.Device, error) {
	if err := spec.ValidateDevices(list); err != nil {
		return nil, err
	}
	var out []spec.Device
	for i, d := range list {
		found, err := resolve(d)
		if err != nil {
			return nil, fmt.Errorf("devices[%d].host_path: %w: %w", i, err, errdefs.ErrInvalidArgument)
		}
		out = append(out, found...)
	}
	return out, nil
}

func resolve(d *runtime.Device) ([]spec.Device, error) {
	from, err := filepath.EvalSymlinks(d.GetHostPath())
	if err != nil {
		return nil, err
	}
	w := walker{from: from, to: d.GetContainerPath(), permissions: d.GetPermissions(), skip: skipped}
	if w.to == "" {
		w.to = d.GetHostPath()
	}
	if w.permissions == "" {
		w.permissions = "rwm"
	}
	info, err := os.Lstat(from)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		err = w.walk("", 0)
	} else {
		err = w.add("")
	}
	if err == nil && len(w.found) == 0 {
		err = fmt.Errorf("%s is not a device", d.GetHostPath())
	}
	return w.found, err
}

// walker collects the devices below a folder.
type walker struct {
	from, to    string
	permissions string
	// skip are names left out at the top.
	skip  []string
	found []spec.Device
}

func (w *walker) walk(rel string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s is too deep", filepath.Join(w.from, rel))
	}
	entries, err := os.ReadDir(filepath.Join(w.from, rel))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if depth == 0 && slices.Contains(w.skip, e.Name()) {
			continue
		}
		below := filepath.Join(rel, e.Name())
		switch {
		case e.IsDir():
			err = w.walk(below, depth+1)
		case e.Type()&fs.ModeDevice != 0:
			err = w.add(below)
		}
		if err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

// add adds one node if it is a device.
func (w *walker) add(rel string) error {
	host := filepath.Join(w.from, rel)
	var st unix.Stat_t
	if err := unix.Lstat(host, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: host, Err: err}
	}
	var kind string
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		kind = "c"
	case unix.S_IFBLK:
		kind = "b"
	default:
		return nil
	}
	if len(w.found) >= maxDevices {
		return fmt.Errorf("%s has more than %d devices", w.from, maxDevices)
	}
	w.found = append(w.found, spec.Device{
		ContainerPath: filepath.Join(w.to, rel), HostPath: host, Type: kind,
		Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
		Mode: fs.FileMode(st.Mode & 0o777), UID: st.Uid, GID: st.Gid, Permissions: w.permissions,
	})
	return nil
}
