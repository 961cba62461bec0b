package filetree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// WriteOptions say how a stream is written.
type WriteOptions struct {
	// Owners keeps the owners of the stream; else files are the caller's.
	Owners bool
	// Owner translates owners, of which those of the caller are root's; nil
	// translates none.
	Owner func(uid, gid int) (int, int)
	// Rename, when not empty, takes the place of the first part of every
	// name; "." leaves it out.
	Rename string
}

// ErrKind is an entry that would take the place of one that must stay: a
// folder that of a file, or a file that of a folder.
var ErrKind = errors.New("cannot overwrite")

// Write unpacks a tar stream into a folder below root. What is there is
// replaced, but a folder never by something else, nor something else by a
// folder. Devices are left out. It reads the stream to its end.
func Write(ctx context.Context, r io.Reader, root *os.File, name string, o WriteOptions) error {
	w := &writer{root: root, base: name, options: o}
	dir, err := OpenFolder(root, name)
	if err != nil {
		return err
	}
	dir.Close()
	in := tar.NewReader(contextReader{ctx, r})
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return w.finish()
		}
		if err != nil {
			return fmt.Errorf("read tar stream: %w", err)
		}
		if err := w.entry(h, in); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

// writer unpacks entries.
type writer struct {
	root    *os.File
	base    string
	options WriteOptions
	// folders had their times changed by what was put into them.
	folders []*tar.Header
}

// place is the path of a name of the stream, below the folder that is
// unpacked in. An empty one is the folder itself.
func (w *writer) place(name string) string {
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if w.options.Rename != "" && clean != "" {
		_, rest, _ := strings.Cut(clean, "/")
		clean = path.Join(w.options.Rename, rest)
	}
	if clean == "." {
		return ""
	}
	return clean
}

// entry unpacks one entry.
func (w *writer) entry(h *tar.Header, content io.Reader) error {
	name := w.place(h.Name)
	if name == "" {
		return nil
	}
	parent, err := OpenFolder(w.root, path.Join("/", w.base, path.Dir(name)))
	if errors.Is(err, fs.ErrNotExist) {
		parent, err = w.makeParents(path.Dir(name))
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	base := path.Base(name)
	if h.Typeflag == tar.TypeDir {
		return w.folder(parent, base, h)
	}
	if err := makeRoom(parent, base); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return w.file(parent, base, h, content)
	case tar.TypeSymlink:
		if err := unix.Symlinkat(h.Linkname, int(parent.Fd()), base); err != nil {
			return err
		}
		return w.attributes(parent, base, h)
	case tar.TypeLink:
		return w.link(parent, base, h)
	case tar.TypeFifo:
		if err := unix.Mknodat(int(parent.Fd()), base, unix.S_IFIFO|0o600, 0); err != nil {
			return err
		}
		return w.attributes(parent, base, h)
	}
	return nil
}

// makeParents makes the folders of an entry whose own entries the stream
// lacks.
func (w *writer) makeParents(dir string) (*os.File, error) {
	at := path.Join("/", w.base)
	for _, part := range strings.Split(dir, "/") {
		parent, err := OpenFolder(w.root, at)
		if err != nil {
			return nil, err
		}
		err = unix.Mkdirat(int(parent.Fd()), part, 0o755)
		parent.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, err
		}
		at = path.Join(at, part)
	}
	return OpenFolder(w.root, at)
}

// makeRoom removes what is in an entry's place, unless it is a folder.
func makeRoom(parent *os.File, base string) error {
	err := unix.Unlinkat(int(parent.Fd()), base, 0)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EISDIR):
		return fmt.Errorf("%w directory %q with non-directory", ErrKind, base)
	}
	return err
}

// folder makes a folder, or takes the one that is there.
func (w *writer) folder(parent *os.File, base string, h *tar.Header) error {
	err := unix.Mkdirat(int(parent.Fd()), base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(int(parent.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return fmt.Errorf("%w non-directory %q with directory", ErrKind, base)
		}
	} else if err != nil {
		return err
	}
	w.folders = append(w.folders, h)
	return w.attributes(parent, base, h)
}

// file makes a regular file.
func (w *writer) file(parent *os.File, base string, h *tar.Header, content io.Reader) error {
	flags := unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(int(parent.Fd()), base, flags, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	if _, err := io.Copy(f, content); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return w.attributes(parent, base, h)
}

// link makes another name of a file of the stream.
func (w *writer) link(parent *os.File, base string, h *tar.Header) error {
	target, err := Open(w.root, path.Join("/", w.base, w.place(h.Linkname)), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	defer target.Close()
	return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+itoa(target.Fd()), int(parent.Fd()), base, unix.AT_SYMLINK_FOLLOW)
}

// attributes sets owner, mode and times. The mode comes after the owner, whose
// change clears bits. What is in the place is opened once, and never followed.
func (w *writer) attributes(parent *os.File, base string, h *tar.Header) error {
	fd, err := unix.Openat(int(parent.Fd()), base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if w.options.Owners || w.options.Owner != nil {
		var uid, gid int
		if w.options.Owners {
			uid, gid = h.Uid, h.Gid
		}
		if w.options.Owner != nil {
			uid, gid = w.options.Owner(uid, gid)
		}
		if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	if h.Typeflag == tar.TypeSymlink {
		return nil
	}
	if err := unix.Fchmodat(unix.AT_FDCWD, self, uint32(h.Mode)&0o7777, 0); err != nil {
		return err
	}
	return setTime(self, h)
}

// setTime sets the time of change, which a path of /proc leads to.
func setTime(self string, h *tar.Header) error {
	if h.ModTime.IsZero() {
		return nil
	}
	ts, err := unix.TimeToTimespec(h.ModTime)
	if err != nil {
		return nil // it is beyond what the kernel keeps
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, self, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, ts}, 0)
}

// finish sets the times of folders, the last one first.
func (w *writer) finish() error {
	for i := len(w.folders) - 1; i >= 0; i-- {
		h := w.folders[i]
		dir, err := OpenFolder(w.root, path.Join("/", w.base, w.place(h.Name)))
		if err != nil {
			continue // it was changed meanwhile, and is not ours any more
		}
		err = setTime("/proc/self/fd/"+itoa(dir.Fd()), h)
		dir.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func itoa(fd uintptr) string { return strconv.Itoa(int(fd)) }
