package checkpoint

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// How an OCI layer tells deletions, and how an overlay does.
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	opaqueXattr    = "trusted.overlay.opaque"
)

// paxXattr begins the PAX records of xattrs.
const paxXattr = "SCHILY.xattr."

// keptXattrs are those of files that a layer carries.
var keptXattrs = []string{"security.capability"}

// WriteLayer writes an overlay's upper folder as the tar of an OCI layer.
// Nobody may change the folder meanwhile; sockets, which mean nothing without
// their process, are left out. Paths are resolved inside the folder only.
func WriteLayer(ctx context.Context, w io.Writer, upper string) error {
	root, err := os.OpenRoot(upper)
	if err != nil {
		return err
	}
	defer root.Close()
	l := &layerWriter{root: root, out: tar.NewWriter(w)}
	err = fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || name == "." {
			return err
		}
		return l.entry(name, entry)
	})
	if err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	return l.out.Close()
}

type layerWriter struct {
	root *os.Root
	out  *tar.Writer
}

func (l *layerWriter) entry(name string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	link := ""
	switch mode := info.Mode(); {
	case mode&fs.ModeSocket != 0:
		return nil
	case mode&fs.ModeSymlink != 0:
		if link, err = l.root.Readlink(name); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	// Accounts of the host are not those of the container.
	header.Uname, header.Gname = "", ""
	header.Name, header.Format = name, tar.FormatPAX
	switch header.Typeflag {
	case tar.TypeChar:
		if header.Devmajor == 0 && header.Devminor == 0 {
			return l.whiteout(name)
		}
	case tar.TypeDir:
		header.Name += "/"
		return l.directory(name, header)
	case tar.TypeReg:
		return l.file(name, header)
	}
	return l.out.WriteHeader(header)
}

func (l *layerWriter) whiteout(name string) error {
	return l.out.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: path.Join(path.Dir(name), whiteoutPrefix+path.Base(name)),
	})
}

func (l *layerWriter) directory(name string, header *tar.Header) error {
	if err := l.out.WriteHeader(header); err != nil {
		return err
	}
	f, err := l.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	value, err := xattr(f, opaqueXattr)
	if err != nil || string(value) != "y" {
		return err
	}
	return l.out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path.Join(name, opaqueName)})
}

func (l *layerWriter) file(name string, header *tar.Header) error {
	f, err := l.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, key := range keptXattrs {
		value, err := xattr(f, key)
		if err != nil {
			return err
		}
		if value != nil {
			header.PAXRecords = map[string]string{paxXattr + key: string(value)}
		}
	}
	if err := l.out.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.CopyN(l.out, f, header.Size)
	return err
}

// xattr reads a small xattr; nil means that there is none.
func xattr(f *os.File, name string) ([]byte, error) {
	value := make([]byte, 256)
	n, err := unix.Fgetxattr(int(f.Fd()), name, value)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read xattr %s: %w", name, err)
	}
	return value[:n], nil
}
