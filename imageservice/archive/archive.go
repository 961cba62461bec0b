// Package archive gives access by name to the files of an image archive, a tar
// file. Names come from strangers, and lead to nothing but what is in it.
package archive

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
)

const (
	// maxFiles bounds the files of an archive.
	maxFiles = 100_000
	// maxName bounds a name, and where a link leads, in bytes.
	maxName = 4096
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

// tarball is a tar file whose places are known.
type tarball struct {
	f     *os.File
	files map[string]place
	links map[string]string
}

type place struct{ off, size int64 }

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
		if len(hdr.Name) > maxName || len(hdr.Linkname) > maxName {
			return fmt.Errorf("a name of more than %d bytes: %w", maxName, errdefs.ErrInvalidArgument)
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
