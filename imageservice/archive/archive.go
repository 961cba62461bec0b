// Package archive gives access by name to the files of an image archive: a
// folder, or a tar file, plain or compressed by gzip or zstd. Names come from
// strangers; none leads out of the folder.
package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/imageservice/unpack"
)

const (
	// maxFiles bounds the files of an archive.
	maxFiles = 100_000
	// maxBytes bounds what a compressed one unpacks to.
	maxBytes = 256 << 30
	// maxLinks bounds symbolic links to symbolic links.
	maxLinks = 8
)

// Archive is an open archive. Its files may be read at the same time, until
// it is closed.
type Archive interface {
	// Open opens a regular file and tells its size in bytes. It fails with
	// ErrNotFound when there is none of that name. The caller closes it.
	Open(name string) (io.ReadCloser, int64, error)
	Close() error
}

// Open opens a folder or a tar file. The caller closes it.
func Open(path string) (Archive, error) {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if fi.IsDir() {
		root, err := os.OpenRoot(path)
		return folder{root}, err
	}
	return openTar(path)
}

// folder is an archive as files.
type folder struct{ root *os.Root }

// Open follows links inside the folder.
func (f folder) Open(name string) (io.ReadCloser, int64, error) {
	file, err := f.root.Open(clean(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("%s: %w", name, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, 0, err
	}
	fi, err := file.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file: %w", name, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		file.Close()
		return nil, 0, err
	}
	return file, fi.Size(), nil
}

// Close closes the folder.
func (f folder) Close() error { return f.root.Close() }

// tarball is a tar file whose places are known.
type tarball struct {
	f     *os.File
	files map[string]place
	links map[string]string
}

type place struct{ off, size int64 }

func openTar(path string) (Archive, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if f, err = plain(f); err != nil {
		return nil, err
	}
	return File(f)
}

// File opens a tar file that is not compressed. It is the archive's from here
// on, and closed when this fails.
func File(f *os.File) (Archive, error) {
	t := &tarball{f: f, files: map[string]place{}, links: map[string]string{}}
	if err := t.index(); err != nil {
		f.Close()
		return nil, err
	}
	return t, nil
}

// plain returns the file itself, or an unnamed one with its content
// decompressed, and closes the other.
func plain(f *os.File) (*os.File, error) {
	magic := make([]byte, 262)
	n, err := f.ReadAt(magic, 0)
	if err != nil && err != io.EOF {
		f.Close()
		return nil, err
	}
	if n == len(magic) && string(magic[257:]) == "ustar" {
		return f, nil
	}
	defer f.Close()
	r, err := unpack.Decompress(f)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	out, err := os.CreateTemp("", "nodeagent-import-")
	if err != nil {
		return nil, err
	}
	if err = os.Remove(out.Name()); err == nil {
		n, cerr := io.Copy(out, io.LimitReader(r, maxBytes+1))
		if err = cerr; err == nil && n > maxBytes {
			err = fmt.Errorf("it unpacks to more than %d bytes: %w", int64(maxBytes), errdefs.ErrInvalidArgument)
		}
	}
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("decompress: %w", err)
	}
	return out, nil
}

// index notes where each file is.
func (t *tarball) index() error {
	counter := &offset{r: io.NewSectionReader(t.f, 0, 1<<62)}
	tr := tar.NewReader(counter)
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tar: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		if len(t.files)+len(t.links) >= maxFiles {
			return fmt.Errorf("more than %d files: %w", maxFiles, errdefs.ErrInvalidArgument)
		}
		name := clean(hdr.Name)
		switch hdr.Typeflag {
		case tar.TypeReg:
			t.files[name] = place{counter.n, hdr.Size}
			delete(t.links, name)
		case tar.TypeSymlink:
			t.links[name] = clean(path.Join(path.Dir(name), hdr.Linkname))
			delete(t.files, name)
		case tar.TypeLink:
			t.links[name] = clean(hdr.Linkname)
			delete(t.files, name)
		}
	}
}

// offset counts what was read. It can seek, so that tar skips over content.
type offset struct {
	r *io.SectionReader
	n int64
}

func (o *offset) Read(p []byte) (int, error) {
	n, err := o.r.Read(p)
	o.n += int64(n)
	return n, err
}

// Seek serves archive/tar, which goes forward only.
func (o *offset) Seek(off int64, whence int) (int64, error) {
	n, err := o.r.Seek(off, whence)
	o.n = n
	return n, err
}

// Open opens a file, following links that docker save makes for layers that
// are the same.
func (t *tarball) Open(name string) (io.ReadCloser, int64, error) {
	at := clean(name)
	for range maxLinks {
		if p, ok := t.files[at]; ok {
			return io.NopCloser(io.NewSectionReader(t.f, p.off, p.size)), p.size, nil
		}
		next, ok := t.links[at]
		if !ok {
			break
		}
		at = next
	}
	return nil, 0, fmt.Errorf("%s: %w", name, errdefs.ErrNotFound)
}

// Close closes the file.
func (t *tarball) Close() error { return t.f.Close() }

// clean makes a name relative, without dots.
func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}
