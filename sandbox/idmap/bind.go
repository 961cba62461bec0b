package idmap

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// BindRequest asks for a folder of the host to be seen at another place.
type BindRequest struct {
	Source, Target string
	// UserNS is the path of the user namespace that owners are translated
	// for; empty translates none.
	UserNS string
	// Below takes along what is mounted below the source. With a user
	// namespace it is left out, since many of those cannot be translated.
	Below    bool
	ReadOnly bool
}

// Bind mounts a folder on another. Nothing that is mounted or unmounted at
// either is seen at the other afterwards.
func Bind(req BindRequest) error {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	var below uint
	if req.Below && req.UserNS == "" {
		below = unix.AT_RECURSIVE
	}
	st, err := os.Stat(req.Source)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return &os.PathError{Op: "open", Path: req.Source, Err: unix.ENOTDIR}
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, req.Source, flags|below)
	if err != nil {
		return fmt.Errorf("clone mount of %s: %w", req.Source, err)
	}
	defer unix.Close(tree)
	attr := &unix.MountAttr{Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|below, attr); err != nil {
		return fmt.Errorf("make mount of %s private: %w", req.Source, err)
	}
	if err := req.change(tree); err != nil {
		return err
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, req.Target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach mount of %s: %w", req.Source, err)
	}
	return nil
}

// change sets what is asked of the topmost mount.
func (req BindRequest) change(tree int) error {
	attr := &unix.MountAttr{}
	if req.ReadOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if req.UserNS != "" {
		userns, err := os.Open(req.UserNS)
		if err != nil {
			return fmt.Errorf("translate owners: %w", err)
		}
		defer userns.Close()
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(userns.Fd())
	}
	if attr.Attr_set == 0 {
		return nil
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, attr); err != nil {
		return fmt.Errorf("change mount of %s: %w", req.Source, err)
	}
	return nil
}
