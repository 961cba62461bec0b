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
	// Shared says whether another container may have the folder already; nil is
	// nobody. It is asked while nobody can begin to hold the volume, and must not
	// call the Store.
	Shared func() bool
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
	if err := s.fill(ctx, from, req, len(v.Options) > 0); err != nil {
		return fmt.Errorf("populate volume %s from %s: %w", volume, name, err)
	}
	return nil
}

// fill copies a folder into a volume that is empty. Neither a mount can be replaced
// nor a folder that others have: the copy goes into those.
func (s *Store) fill(ctx context.Context, from *os.File, req PopulateRequest, mount bool) error {
	target := s.Path(req.Volume)
	if empty, err := isEmpty(target); err != nil || !empty {
		return err
	}
	if !mount && (req.Shared == nil || !req.Shared()) {
		if shared, err := s.replace(ctx, from, req); err != nil || !shared {
			return err
		}
		if empty, err := isEmpty(target); err != nil || !empty {
			return err
		}
	}
	return newCopier(ctx, req.Owner).tree(from, target)
}

// replace puts a copy in place of the volume's empty folder. Shared says that it did
// not, since somebody has that by now.
func (s *Store) replace(ctx context.Context, from *os.File, req PopulateRequest) (shared bool, err error) {
	stage, err := os.MkdirTemp(filepath.Join(s.root, req.Volume), stagePrefix)
	if err != nil {
		return false, err
	}
	if err := newCopier(ctx, req.Owner).tree(from, stage); err != nil {
		return false, errors.Join(err, os.RemoveAll(stage))
	}
	s.mu.Lock()
	if shared = req.Shared != nil && req.Shared(); !shared {
		// The package os refuses to rename over a folder, which may be done when it
		// is empty.
		err = unix.Rename(stage, s.Path(req.Volume))
	}
	s.mu.Unlock()
	if err == nil && !shared {
		return false, nil
	}
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) {
		err = nil // another container was quicker
	}
	err = errors.Join(err, os.RemoveAll(stage))
	if _, seek := from.Seek(0, io.SeekStart); err == nil {
		err = seek // its entries are read once more
	}
	return shared, err
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
