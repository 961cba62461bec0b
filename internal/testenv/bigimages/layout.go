package bigimages

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
)

// content says what goes into a layer: a folder, up to some bound, or files given.
type content struct {
	from, as          string
	bytes, compressed int64
	files             int
	// largest leaves bigger files out; zero takes all.
	largest int64
	text    map[string]string
}

// errFull ends a layer that has all it should.
var errFull = errors.New("full")

// write writes the layer's tar stream. packed tells how much has come out of the compressor.
func (c content) write(w io.Writer, packed func() int64, size *Size) error {
	archive := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(c.text)) {
		hdr := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(c.text[name]))}
		if err := archive.WriteHeader(hdr); err != nil {
			return err
		}
		if _, err := io.WriteString(archive, c.text[name]); err != nil {
			return err
		}
		size.Files++
	}
	if c.from != "" {
		err := filepath.WalkDir(c.from, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return c.add(archive, path, d, packed, size)
		})
		if err != nil && !errors.Is(err, errFull) {
			return err
		}
	}
	return archive.Close()
}

// add adds one file of a folder.
func (c *content) add(archive *tar.Writer, path string, d fs.DirEntry, packed func() int64, size *Size) error {
	if c.files > 0 && size.Files >= c.files || c.bytes > 0 && size.Bytes >= c.bytes || c.compressed > 0 && packed() >= c.compressed {
		return errFull
	}
	rel, err := filepath.Rel(c.from, path)
	if err != nil {
		return err
	}
	info, err := d.Info()
	if err != nil {
		return err
	}
	link := ""
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	case !info.Mode().IsRegular() && !info.IsDir(), c.largest > 0 && info.Mode().IsRegular() && info.Size() > c.largest:
		return nil
	}
	hdr, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	hdr.Name, hdr.Format = filepath.Join(c.as, rel), tar.FormatPAX
	if info.IsDir() {
		hdr.Name += "/"
	}
	if err := archive.WriteHeader(hdr); err != nil {
		return err
	}
	size.Files++
	if !info.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(archive, f)
	size.Bytes += n
	return err
}

// counter counts what passes.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// layer writes one layer as a blob.
func (l *layout) layer(c content) (layer, error) {
	f, err := os.CreateTemp(l.dir, "layer-")
	if err != nil {
		return layer{}, err
	}
	defer f.Close()
	packedSum, plainSum := digest.SHA256.Digester(), digest.SHA256.Digester()
	packed := &counter{w: io.MultiWriter(f, packedSum.Hash())}
	z, err := gzip.NewWriterLevel(packed, gzip.DefaultCompression)
	if err != nil {
		return layer{}, err
	}
	var done layer
	if err := c.write(io.MultiWriter(z, plainSum.Hash()), func() int64 { return packed.n }, &done.size); err != nil {
		return layer{}, err
	}
	if err := z.Close(); err != nil {
		return layer{}, err
	}
	done.digest, done.diffID, done.size.Compressed, done.size.Layers = packedSum.Digest(), plainSum.Digest(), packed.n, 1
	if done.size.Files == 0 {
		return layer{}, fmt.Errorf("layer of %s: empty", c.from)
	}
	return done, os.Rename(f.Name(), l.path(done.digest))
}
