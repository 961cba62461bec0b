// Package filetree reads and writes trees of files as tar streams, below a
// root that somebody else may change all the while.
//
// A path is resolved by openat2 as if the root were "/": a link that is
// absolute, and "..", lead nowhere but below it, and the links of /proc lead
// nowhere at all. What was opened is then used by its descriptor, so that who
// swaps a folder for a link in between gains nothing. Nothing in the tree is
// executed and nothing is mounted. Of a stream every name is a path below the
// folder it is unpacked in.
package filetree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxDepth is how deep folders may be nested; no path can be deeper.
const maxDepth = 2048

// resolve is how every path is opened.
const resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// Info tells of a path.
type Info struct {
	Name    string
	Size    int64
	Mode    fs.FileMode
	ModTime time.Time
	// Target is where a symbolic link leads, as it is written.
	Target string
}

// Stat tells of a path below root; follow tells of what a link leads to.
// Errors wrap fs.ErrNotExist and its like.
func Stat(root *os.File, name string, follow bool) (Info, error) {
	f, err := openPath(root, name, follow)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Info{}, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	info := Info{
		Name: path.Base(path.Clean("/" + name)), Size: st.Size, Mode: modeOf(&st), ModTime: time.Unix(st.Mtim.Unix()),
	}
	if info.Mode&fs.ModeSymlink != 0 {
		info.Target, err = readlink(f)
	}
	return info, err
}

// openPath opens a path itself, not for reading.
func openPath(root *os.File, name string, follow bool) (*os.File, error) {
	flags := uint64(unix.O_PATH | unix.O_CLOEXEC)
	if !follow && !strings.HasSuffix(name, "/") && !strings.HasSuffix(name, "/.") {
		flags |= unix.O_NOFOLLOW
	}
	return Open(root, name, flags)
}

// moveAttempts bounds the repeating of an opening that others' moving of files got
// in the way of: a container could do so all day.
const moveAttempts = 1000

// Open opens a path below root; flags are those of openat2. Errors wrap
// fs.ErrNotExist and its like.
func Open(root *os.File, name string, flags uint64) (*os.File, error) {
	if strings.ContainsRune(name, 0) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: unix.EINVAL}
	}
	if name == "" {
		name = "/"
	}
	var fd int
	var err error
	for range moveAttempts {
		fd, err = unix.Openat2(int(root.Fd()), name, &unix.OpenHow{Flags: flags, Resolve: resolve})
		// EAGAIN: something was moved just then.
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// OpenFolder opens a folder below root for what is in it.
func OpenFolder(root *os.File, name string) (*os.File, error) {
	return Open(root, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
}

// readlink reads a link opened by openPath.
func readlink(f *os.File) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", buf)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: f.Name(), Err: err}
	}
	return string(buf[:n]), nil
}

// modeOf is a mode as Go has it.
func modeOf(st *unix.Stat_t) fs.FileMode {
	mode := fs.FileMode(st.Mode & 0o777)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	}
	for bit, is := range map[uint32]fs.FileMode{unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky} {
		if st.Mode&bit != 0 {
			mode |= is
		}
	}
	return mode
}

// errTooDeep is a tree that no path reaches the end of.
var errTooDeep = fmt.Errorf("folders are nested more than %d deep", maxDepth)
