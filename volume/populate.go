package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/filetree"
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
	from, err := filetree.OpenFolder(req.Root, path.Clean("/"+name))
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
	_, err = f.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// OpenSubfolder opens a folder in a volume. It stays that one, whatever containers
// that have the volume put in its place; a path of it would not.
func (s *Store) OpenSubfolder(volume, name string) (*os.File, error) {
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("invalid subpath %q: it must be a relative path in the volume: %w", name, errdefs.ErrInvalidArgument)
	}
	root, err := os.Open(s.Path(volume))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	dir, err := filetree.OpenFolder(root, name)
	if err != nil {
		return nil, fmt.Errorf("cannot access path %s in volume %s: %w: %w", name, volume, err, errdefs.ErrInvalidArgument)
	}
	return dir, nil
}

// BindSubfolder makes a folder in a volume be seen at target, which is ours, until
// target is unmounted.
func (s *Store) BindSubfolder(volume, name, target string) error {
	dir, err := s.OpenSubfolder(volume, name)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Mount(self(dir), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount path %s of volume %s: %w", name, volume, err)
	}
	return nil
}
