package filetree

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// ReadOptions say how a tree is read.
type ReadOptions struct {
	// Follow reads what a link at the path leads to. Links below it are
	// kept as they are.
	Follow bool
	// Name is what the path is called in the stream; empty is what it is
	// called in the tree. "." leaves the path's own entry out of a folder.
	Name string
	// Owner translates owners; nil keeps them.
	Owner func(uid, gid uint32) (int, int)
}

// Read writes a path below root, with all that is below it, as a tar stream.
// Sockets and devices are left out; what goes away meanwhile is too.
func Read(ctx context.Context, w io.Writer, root *os.File, name string, o ReadOptions) error {
	at, err := openPath(root, name, o.Follow)
	if err != nil {
		return err
	}
	defer at.Close()
	r := &reader{ctx: ctx, tar: tar.NewWriter(w), options: o, links: map[inode]string{}}
	base := o.Name
	if base == "" {
		base = path.Base(path.Clean("/" + name))
	}
	if base == "/" {
		base = "."
	}
	if err := r.entry(at, base, 0); err != nil {
		return err
	}
	return r.tar.Close()
}

type inode struct{ dev, ino uint64 }

// reader writes entries to a tar stream.
type reader struct {
	ctx     context.Context
	tar     *tar.Writer
	options ReadOptions
	// links are the first names of files with several.
	links map[inode]string
}

// entry writes what at is, which was opened as a path, and what is below it.
func (r *reader) entry(at *os.File, name string, depth int) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if depth > maxDepth {
		return errTooDeep
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(at.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	h := r.header(name, &st)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return r.folder(at, h, name, depth)
	case unix.S_IFREG:
		return r.file(at, h, &st)
	case unix.S_IFLNK:
		target, err := readlink(at)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
		return r.tar.WriteHeader(h)
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
		return r.tar.WriteHeader(h)
	}
	return nil
}

// header is what entries of all kinds have.
func (r *reader) header(name string, st *unix.Stat_t) *tar.Header {
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()).Truncate(time.Second),
	}
	if r.options.Owner != nil {
		h.Uid, h.Gid = r.options.Owner(st.Uid, st.Gid)
	}
	return h
}

// folder writes a folder and what is in it.
func (r *reader) folder(at *os.File, h *tar.Header, name string, depth int) error {
	if name != "." {
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		if err := r.tar.WriteHeader(h); err != nil {
			return err
		}
	}
	dir, err := reopen(at, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		for _, child := range names {
			if err := r.child(dir, child, path.Join(name, child), depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// child writes an entry of a folder, if it is still there.
func (r *reader) child(dir *os.File, child, name string, depth int) error {
	fd, err := unix.Openat(int(dir.Fd()), child, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: name, Err: err}
	}
	at := os.NewFile(uintptr(fd), name)
	defer at.Close()
	return r.entry(at, name, depth+1)
}

// file writes a regular file, as many bytes as were promised: what one that
// shrinks lacks is zeros.
func (r *reader) file(at *os.File, h *tar.Header, st *unix.Stat_t) error {
	h.Typeflag = tar.TypeReg
	if key := (inode{uint64(st.Dev), st.Ino}); st.Nlink > 1 {
		if first, ok := r.links[key]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return r.tar.WriteHeader(h)
		}
		r.links[key] = h.Name
	}
	f, err := reopen(at, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer f.Close()
	h.Size = st.Size
	if err := r.tar.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(r.tar, io.LimitReader(contextReader{r.ctx, f}, st.Size))
	if err == nil && n < st.Size {
		_, err = io.CopyN(r.tar, zeros{}, st.Size-n)
	}
	return err
}

// reopen opens what was opened as a path. It is that very file, since what
// /proc shows of our own descriptors is no path in the tree.
func reopen(at *os.File, flags int) (*os.File, error) {
	fd, err := unix.Open("/proc/self/fd/"+itoa(at.Fd()), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: at.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), at.Name()), nil
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	io.Reader
}

// Read reads until the context is done.
func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.Reader.Read(p)
}

// zeros are without end.
type zeros struct{}

// Read gives zeros.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
