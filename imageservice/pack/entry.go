package pack

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/imageservice/unpack"
	"golang.org/x/sys/unix"
)

// What a layer has for deletions.
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
)

// errGone is an entry that is not there any more.
var errGone = errors.New("it has just been removed")

// entry writes one entry of a directory, and what is below it.
func (t *tree) entry(full, name string, dir *os.File, depth int) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		err = t.kind(full, name, dir, depth, &st)
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EXDEV) || errors.Is(err, errGone) {
		return nil // the container has just removed it, or something is mounted there
	}
	var done entryError
	if err == nil || errors.As(err, &done) {
		return err
	}
	return entryError{fmt.Errorf("%s: %w", shorten(full), err)}
}

// entryError says already which entry it is about.
type entryError struct{ error }

func (e entryError) Unwrap() error { return e.error }

func (t *tree) kind(full, name string, dir *os.File, depth int, st *unix.Stat_t) error {
	if t.opts.Layer && strings.HasPrefix(name, whiteoutPrefix) {
		return fmt.Errorf("a layer cannot hold a name that begins with %s: %w", whiteoutPrefix, errdefs.ErrInvalidArgument)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return t.enter(full, name, dir, depth)
	case unix.S_IFREG:
		return t.file(full, name, dir)
	case unix.S_IFLNK:
		return t.symlink(full, name, dir, st)
	case unix.S_IFCHR:
		if t.opts.Layer && st.Rdev == 0 {
			return t.whiteout(full, name)
		}
		return t.node(full, tar.TypeChar, st)
	case unix.S_IFBLK:
		return t.node(full, tar.TypeBlock, st)
	case unix.S_IFIFO:
		return t.node(full, tar.TypeFifo, st)
	}
	return nil // a socket means nothing without its process
}

// enter writes a directory.
func (t *tree) enter(full, name string, dir *os.File, depth int) error {
	f, err := openAt(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return changed(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if err := t.directoryHeader(full+"/", int(f.Fd()), &st); err != nil {
		return err
	}
	return t.directory(full, f, depth+1)
}

// directoryHeader writes a directory's own entry, and that it hides what is
// below.
func (t *tree) directoryHeader(name string, fd int, st *unix.Stat_t) error {
	header := t.header(name, tar.TypeDir, st)
	marks, err := t.xattrs(fd, header)
	if err != nil {
		return err
	}
	if err := t.out.WriteHeader(header); err != nil || !t.opts.Layer || !marks.opaque {
		return err
	}
	if name == "./" {
		name = ""
	}
	return t.out.WriteHeader(mark(name + opaqueName))
}

func (t *tree) whiteout(full, name string) error {
	return t.out.WriteHeader(mark(strings.TrimSuffix(full, name) + whiteoutPrefix + name))
}

// mark is an entry that stands for a deletion.
func mark(name string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
}

// header is what entries of all kinds have.
func (t *tree) header(name string, kind byte, st *unix.Stat_t) *tar.Header {
	uid, gid := int(st.Uid), int(st.Gid)
	if t.opts.Owner != nil {
		uid, gid = t.opts.Owner(st.Uid, st.Gid)
	}
	return &tar.Header{
		Typeflag: kind, Name: name, Mode: int64(st.Mode & 0o7777), Uid: uid, Gid: gid,
		ModTime: time.Unix(st.Mtim.Sec, 0), Format: tar.FormatPAX,
	}
}

func (t *tree) node(full string, kind byte, st *unix.Stat_t) error {
	if linked, err := t.link(full, st); linked || err != nil {
		return err
	}
	header := t.header(full, kind, st)
	if kind != tar.TypeFifo {
		header.Devmajor, header.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	return t.out.WriteHeader(header)
}

func (t *tree) symlink(full, name string, dir *os.File, st *unix.Stat_t) error {
	if linked, err := t.link(full, st); linked || err != nil {
		return err
	}
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), name, target)
	if err != nil {
		return changed(err)
	}
	header := t.header(full, tar.TypeSymlink, st)
	header.Linkname = string(target[:n])
	return t.out.WriteHeader(header)
}

// link writes a hard link to a name that was written before.
func (t *tree) link(full string, st *unix.Stat_t) (bool, error) {
	if st.Nlink < 2 {
		return false, nil
	}
	key := inode{st.Dev, st.Ino}
	if first, ok := t.links[key]; ok {
		header := t.header(full, tar.TypeLink, st)
		header.Linkname = first
		return true, t.out.WriteHeader(header)
	}
	if len(t.links) < maxLinks {
		t.links[key] = full
	}
	return false, nil
}

// file writes a regular file.
func (t *tree) file(full, name string, dir *os.File) error {
	pinned, err := openAt(dir, name, unix.O_PATH)
	if err != nil {
		return changed(err)
	}
	defer pinned.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(pinned.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errGone
	}
	if linked, err := t.link(full, &st); linked || err != nil {
		return err
	}
	// Our own /proc, and a regular file: no door leads anywhere else.
	f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(pinned.Fd())), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if t.opts.Layer && st.Size > maxBytes-t.bytes {
		return fmt.Errorf("a layer of more than %d bytes: %w", int64(maxBytes), errdefs.ErrInvalidArgument)
	}
	t.bytes += st.Size
	header := t.header(full, tar.TypeReg, &st)
	header.Size = st.Size
	marks, err := t.xattrs(int(f.Fd()), header)
	if err != nil {
		return err
	}
	if t.opts.Layer && marks.metacopy {
		return fmt.Errorf("its content is in a layer below: %w", errdefs.ErrFailedPrecondition)
	}
	if err := t.out.WriteHeader(header); err != nil {
		return err
	}
	return t.content(f, st.Size)
}

// content writes as many bytes as were promised. What a file that shrinks
// lacks is zeros.
func (t *tree) content(f *os.File, size int64) error {
	for size > 0 {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		n, err := f.Read(t.buf[:min(int64(len(t.buf)), size)])
		if err == io.EOF || n == 0 && err == nil {
			clear(t.buf)
			n = int(min(int64(len(t.buf)), size))
		} else if err != nil {
			return err
		}
		if _, err := t.out.Write(t.buf[:n]); err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// marks are what overlayfs notes of an entry of its upper directory.
type marks struct {
	opaque, metacopy bool
}

// xattrs puts the wanted extended attributes into a header.
func (t *tree) xattrs(fd int, header *tar.Header) (marks, error) {
	var m marks
	buf := make([]byte, 1024)
	n, err := unix.Flistxattr(fd, buf)
	if errors.Is(err, unix.ERANGE) {
		buf = make([]byte, 64<<10)
		n, err = unix.Flistxattr(fd, buf)
	}
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return m, nil
	}
	if err != nil {
		return m, os.NewSyscallError("flistxattr", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		switch {
		case name == "trusted.overlay.metacopy":
			m.metacopy = true
		case name == "trusted.overlay.redirect" && t.opts.Layer:
			return m, fmt.Errorf("it was renamed in a way that a layer cannot hold: %w", errdefs.ErrFailedPrecondition)
		case name == "trusted.overlay.opaque" || unpack.WantedXattr(name):
			value, err := readXattr(fd, name)
			if err != nil {
				return m, err
			}
			if name == "trusted.overlay.opaque" {
				m.opaque = string(value) == "y"
				continue
			}
			if header.PAXRecords == nil {
				header.PAXRecords = map[string]string{}
			}
			header.PAXRecords["SCHILY.xattr."+name] = string(value)
		}
	}
	return m, nil
}

// readXattr reads one attribute; one that has just gone is empty.
func readXattr(fd int, name string) ([]byte, error) {
	value := make([]byte, 64<<10)
	n, err := unix.Fgetxattr(fd, name, value)
	if errors.Is(err, unix.ENODATA) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read xattr %s: %w", name, err)
	}
	return value[:n], nil
}

// openAt opens an entry of a directory itself.
func openAt(dir *os.File, name string, flags uint64) (*os.File, error) {
	how := &unix.OpenHow{
		Flags:   flags | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	if flags&unix.O_PATH != 0 {
		// A link that took the file's place is opened, and found to be one.
		how.Resolve &^= unix.RESOLVE_NO_SYMLINKS
	}
	for {
		fd, err := unix.Openat2(int(dir.Fd()), name, how)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// changed tells an entry that is something else by now.
func changed(err error) error {
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EINVAL) {
		return errGone
	}
	return err
}
