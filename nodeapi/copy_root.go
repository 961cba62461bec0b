package nodeapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	"golang.org/x/sys/unix"
)

// errReadOnly is a copy into what the container may not write to.
var errReadOnly = errors.New("mount is read-only")

// place is where a path of a container is.
type place struct {
	root *os.File
	// path is below root.
	path string
	// mapped says that owners of files are those that the host sees of the
	// container's user namespace.
	mapped bool
}

// withFiles calls use with the place of a path as the container sees it,
// mounts and all. A running container's files are seen through its process,
// in whose mount namespace it is the kernel that resolves; those of one that
// does not run are its layers and, where the path leads below one of its
// mounts, that mount's source. write refuses what is mounted read-only.
func (s *Server) withFiles(ctx context.Context, c sandbox.Container, name string, write bool, use func(place) error) error {
	mapped := s.ownersOf(c) != nil
	// A container may be started or end between the looks at it.
	for range 3 {
		if running(c) && mapped {
			// Nobody of the host may write through a translated mount.
			if m, rest := mountAt(s.specOf(c).GetMounts(), name); m != nil && m.GetType() != nodev1.Mount_IMAGE && m.GetType() != nodev1.Mount_TMPFS {
				if write && m.GetReadOnly() {
					return errReadOnly
				}
				return s.withMount(ctx, m, rest, use)
			}
		}
		if running(c) {
			root, err := s.openRunning(c)
			if err == nil {
				defer root.Close()
				return use(place{root, name, mapped})
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		} else if err := s.withStopped(ctx, c, name, write, use); !errors.Is(err, sandbox.ErrRunning) {
			return err
		}
		now, err := s.sandboxes.Container(c.ID)
		if err != nil {
			return err
		}
		c = now
	}
	return failf(errdefs.ErrUnavailable, "container %s is being started and stopped", c.ID)
}

// openRunning opens the root folder of a running container's process. The
// process is checked after the opening, since its number may be another's by
// then.
func (s *Server) openRunning(c sandbox.Container) (*os.File, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/root", c.PID), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open root of", Path: c.ID, Err: err}
	}
	root := os.NewFile(uintptr(fd), "/")
	if now, err := s.sandboxes.Container(c.ID); err != nil || now.PID != c.PID || !running(now) {
		root.Close()
		return nil, &fs.PathError{Op: "open root of", Path: c.ID, Err: unix.ENOENT}
	}
	return root, nil
}

// withStopped is withFiles for a container that does not run.
func (s *Server) withStopped(ctx context.Context, c sandbox.Container, name string, write bool, use func(place) error) error {
	spec := s.specOf(c)
	if m, rest := mountAt(spec.GetMounts(), name); m != nil {
		if write && m.GetReadOnly() {
			return errReadOnly
		}
		return s.withMount(ctx, m, rest, use)
	}
	if write && spec.GetSecurity().GetReadOnly() {
		return errReadOnly
	}
	if file := s.networkFile(c, name); file != "" && !write {
		return s.withMount(ctx, &nodev1.Mount{Type: nodev1.Mount_BIND, Source: file, Target: name}, "", use)
	}
	mapped := s.ownersOf(c) != nil
	return s.sandboxes.ChangeRootfs(ctx, c.ID, func(root *os.File) error { return use(place{root, name, mapped}) })
}

// networkFile is the file that is mounted over one in a container's /etc, such as
// its hosts file; empty where the path is another, or one that a person mounts.
func (s *Server) networkFile(c sandbox.Container, name string) string {
	own, ok := networkFiles[path.Clean("/"+name)]
	pod, err := s.sandboxes.Pod(c.PodID)
	if !ok || err != nil || pod.Owner != sandbox.OwnerNodectl {
		return ""
	}
	file := s.files.path(podKey(pod), own)
	if _, err := os.Lstat(file); err != nil {
		return "" // it shares the network of another, and that one's files
	}
	return file
}

// mountAt finds the mount that a path is below, and the rest of the path.
func mountAt(mounts []*nodev1.Mount, name string) (found *nodev1.Mount, rest string) {
	clean := path.Clean("/" + name)
	for _, m := range mounts {
		target := path.Clean(m.GetTarget())
		if clean != target && !strings.HasPrefix(clean, target+"/") {
			continue
		}
		if found == nil || len(target) > len(path.Clean(found.GetTarget())) {
			found, rest = m, strings.TrimPrefix(clean, target)
		}
	}
	if strings.HasSuffix(name, "/") || strings.HasSuffix(name, "/.") {
		rest += "/"
	}
	return found, rest
}

// withMount calls use with the source of a mount.
func (s *Server) withMount(ctx context.Context, m *nodev1.Mount, rest string, use func(place) error) error {
	source := m.GetSource()
	switch m.GetType() {
	case nodev1.Mount_VOLUME:
		if _, err := s.volumes.Mount(ctx, m.GetSource()); err != nil {
			return err
		}
		if isPart(m) {
			root, err := s.volumes.OpenSubfolder(m.GetSource(), m.GetSubpath())
			if err != nil {
				return err
			}
			defer root.Close()
			return use(place{root, rest, false})
		}
		source = m.GetPath()
	case nodev1.Mount_TMPFS:
		return failf(errdefs.ErrFailedPrecondition, "what is in the tmpfs on %s is there while the container runs only", m.GetTarget())
	case nodev1.Mount_IMAGE:
		return failf(errdefs.ErrFailedPrecondition, "what is in the image on %s is there while the container runs only", m.GetTarget())
	}
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		// A file is found in its folder.
		source, rest = path.Dir(source), path.Base(source)
	}
	root, err := os.Open(source)
	if err != nil {
		return err
	}
	defer root.Close()
	return use(place{root, rest, false})
}

// copyError words a failure as docker does.
func copyError(c sandbox.Container, name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return failf(errdefs.ErrNotFound, "Could not find the file %s in container %s", name, c.Config.GetMetadata().GetName())
	case errors.Is(err, unix.ENOTDIR):
		return failf(errdefs.ErrInvalidArgument, "extraction point is not a directory")
	case errors.Is(err, errReadOnly), errors.Is(err, unix.EROFS):
		return failf(errdefs.ErrFailedPrecondition, "container rootfs or mounted volume is marked read-only")
	}
	return err
}
