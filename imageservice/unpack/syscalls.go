package unpack

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// openDirAt opens a directory itself, not what a link leads to.
func openDirAt(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// openDirIn opens a directory of a layer, whose root is open. Without more flags
// it follows links inside it.
func openDirIn(root int, dir string, resolve uint64) (int, error) {
	how := &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV | resolve,
	}
	for {
		fd, err := unix.Openat2(root, dir, how)
		// EAGAIN: something was renamed anywhere meanwhile.
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		return fd, err
	}
}

func dup(fd int) (int, error) {
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
}

func readlinkat(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// apply sets owner, mode and xattrs of something open, in the order in which
// none undoes another.
func (a attributes) apply(fd int) error {
	if err := own(fd, a.uid, a.gid, a.mode); err != nil {
		return err
	}
	for name, value := range a.xattrs {
		if err := setXattr(fd, name, []byte(value)); err != nil {
			return err
		}
	}
	return nil
}

// own gives something open an owner and a mode, if it has others: most belong to
// root, and looking costs less than changing.
func own(fd, uid, gid int, mode uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if int(st.Uid) != uid || int(st.Gid) != gid {
		if err := unix.Fchown(fd, uid, gid); err != nil {
			return err
		}
	} else if st.Mode&0o7777 == mode {
		return nil
	}
	// After the owner, whose change takes set-id bits away.
	return unix.Fchmod(fd, mode)
}

func setXattr(fd int, name string, value []byte) error {
	err := unix.Fsetxattr(fd, name, value, 0)
	if err == unix.ENOTSUP && strings.HasPrefix(name, "user.") {
		return nil // the filesystem has none, and nothing depends on them
	}
	if err != nil {
		return fmt.Errorf("set xattr %s: %w", name, err)
	}
	return nil
}

// wantedXattr says which xattrs a layer may set. Those that mean something to
// overlayfs or to the host's security modules are not among them.
func wantedXattr(name string) bool {
	return name == "security.capability" ||
		strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

// copyXattrs copies the wanted xattrs.
func copyXattrs(from, to int) error {
	xattrs, err := readXattrs(from)
	for name, value := range xattrs {
		if err := setXattr(to, name, []byte(value)); err != nil {
			return err
		}
	}
	return err
}

func ignoreUnsupported(err error) error {
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

// times is a modification time for utimensat(2), the access time being the
// same.
func times(t time.Time) ([]unix.Timespec, error) {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return nil, fmt.Errorf("modification time %s: %w: %w", t, err, errdefs.ErrInvalidArgument)
	}
	return []unix.Timespec{ts, ts}, nil
}

func futimes(fd int, t time.Time) error {
	ts, err := times(t)
	if err != nil {
		return err
	}
	// An empty path means the descriptor itself.
	return unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH)
}

func splitAll(path string) []string { return strings.Split(path, "/") }

// removeAll removes a name and what is below it, following nothing.
func removeAll(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	fd, err := openDirAt(dir, name)
	if err != nil {
		return err
	}
	sub := os.NewFile(uintptr(fd), name)
	defer sub.Close()
	for {
		names, err := sub.Readdirnames(256)
		for _, n := range names {
			if err := removeAll(fd, n); err != nil {
				return err
			}
		}
		if err != nil {
			break // the end, or something that rmdir will find
		}
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}
