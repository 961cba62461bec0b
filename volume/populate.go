package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// PopulateRequest says what an empty volume gets.
type PopulateRequest struct {
	Volume string
	// Root is the root filesystem of a container, and Name a path in it. It
	// is resolved by openat2 as if Root were "/": no link and no ".." leads
	// out of it.
	Root *os.File
	Name string
	// Shared says that a container runs which has the folder already.
	Shared bool
	// Owner translates owners of files; nil keeps them.
	Owner func(uid, gid uint32) (int, int)
}

// Populate gives an empty volume what a folder of a container holds, and that
// folder's owner and mode; a volume that has something in it is left as it is,
// and so is one whose path is missing or no folder. The copy appears whole or
// not at all, unless the volume is shared.
func (s *Store) Populate(ctx context.Context, req PopulateRequest) error {
	volume, name := req.Volume, req.Name
	v, err := s.Get(volume)
	if err != nil {
		return err
	}
	from, err := openFolder(req.Root, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("populate volume %s from %s: %w", volume, name, err)
	}
	defer from.Close()
	target := s.Path(volume)
	if empty, err := isEmpty(target); err != nil || !empty {
		return err
	}
	c := newCopier(ctx, req.Owner)
	if req.Shared || len(v.Options) > 0 {
		// Neither a folder others have open nor a mount can be replaced.
		err = c.tree(from, target)
	} else {
		err = s.replace(c, from, volume)
	}
	if err != nil {
		return fmt.Errorf("populate volume %s from %s: %w", volume, name, err)
	}
	return nil
}

// openFolder opens a folder below root for reading.
func openFolder(root *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat2(int(root.Fd()), path.Clean("/"+name), &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		// Whatever the image says, nothing outside of it is opened.
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// replace puts a copy in place of the volume's empty folder.
func (s *Store) replace(c *copier, from *os.File, volume string) (err error) {
	stage, err := os.MkdirTemp(filepath.Join(s.root, volume), stagePrefix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(stage))
		}
	}()
	if err := c.tree(from, stage); err != nil {
		return err
	}
	// The package os refuses to rename over a folder, which may be done when it
	// is empty.
	err = unix.Rename(stage, s.Path(volume))
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) {
		// Another container was quicker.
		return os.RemoveAll(stage)
	}
	return err
}

// isEmpty says whether nothing is in a folder.
func isEmpty(dir string) (bool, error) {
	f, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	names, err := f.Readdirnames(1)
	if len(names) == 0 {
		return true, nil
	}
	return false, err
}

// Subfolder finds a folder in a volume, for a mount of a part of it.
func (s *Store) Subfolder(volume, name string) (string, error) {
	if !filepath.IsLocal(name) {
		return "", fmt.Errorf("invalid subpath %q: it must be a relative path in the volume: %w", name, errdefs.ErrInvalidArgument)
	}
	root, err := os.Open(s.Path(volume))
	if err != nil {
		return "", err
	}
	defer root.Close()
	dir, err := openFolder(root, name)
	if err != nil {
		return "", fmt.Errorf("cannot access path %s in volume %s: %w: %w", name, volume, err, errdefs.ErrInvalidArgument)
	}
	defer dir.Close()
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
}
