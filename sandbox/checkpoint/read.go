package checkpoint

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Limits bound what is read of an archive. Zero fields mean the defaults.
type Limits struct {
	// Bytes bounds the whole stream, padding included: 64 GiB.
	Bytes int64
	// Entries bounds the entries: 65536.
	Entries int
}

// jsonLimit bounds each of config.dump and spec.dump, in bytes.
const jsonLimit = 4 << 20

func (l Limits) withDefaults() Limits {
	if l.Bytes <= 0 {
		l.Bytes = 64 << 30
	}
	if l.Entries <= 0 {
		l.Entries = 1 << 16
	}
	return l
}

// imagePattern is what CRIU's files are called, such as core-1.img and
// tmpfs-dev-46.tar.gz.img; descriptors.json is libcontainer's.
var imagePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// ignored are files that other runtimes write; they are read over.
var ignored = map[string]bool{
	"deleted.files": true, "devshm-checkpoint.tar": true, "network.status": true,
	"dump.log": true, "stats-dump": true, "status.dump": true, "container.log": true, "io.kubernetes.cri-o.LogPath": true,
}

// Read reads an archive and puts CRIU's images into the folder "checkpoint"
// and the writable layer into "rootfs-diff.tar" of dir, an existing, empty
// folder that its owner removes, after an error too. A bad archive fails with
// ErrInvalidArgument, a large one with ErrResourceExhausted. It ends when ctx does.
func Read(ctx context.Context, r io.Reader, dir string, limits Limits) (*Archive, error) {
	limits = limits.withDefaults()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	defer root.Close()
	if err := root.Mkdir(ImagesName, 0o700); err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	archive, err := read(untilDone{ctx, r}, limits, func(name string, in io.Reader) error { return store(root, name, in) })
	if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	return archive, nil
}

// read reads an archive and gives store each file to keep.
func read(r io.Reader, limits Limits, store func(name string, in io.Reader) error) (*Archive, error) {
	in := &reader{store: store, seen: map[string]bool{}, stream: &io.LimitedReader{R: r, N: limits.Bytes}}
	if err := in.read(limits.Entries); err != nil {
		return nil, err
	}
	return &in.Archive, nil
}

type reader struct {
	Archive
	store  func(name string, in io.Reader) error
	stream *io.LimitedReader
	seen   map[string]bool
	images bool
}

func (r *reader) read(entries int) error {
	in := tar.NewReader(r.stream)
	for n := 0; ; n++ {
		header, err := in.Next()
		if err == io.EOF && r.stream.N > 0 {
			break
		}
		if err == nil && n >= entries {
			return fmt.Errorf("more than %d entries: %w", entries, errdefs.ErrResourceExhausted)
		}
		if err == nil {
			err = r.entry(header, in)
		}
		if err != nil {
			return r.kind(err)
		}
	}
	switch {
	case !r.seen[ConfigName] || !r.seen[SpecName] || !r.images:
		return fmt.Errorf("no %s, %s or images: %w", ConfigName, SpecName, errdefs.ErrInvalidArgument)
	case r.Spec == nil || r.Spec.Process == nil:
		return fmt.Errorf("%s without a process: %w", SpecName, errdefs.ErrInvalidArgument)
	}
	return nil
}

// kind says of an error of the stream whose fault it is.
func (r *reader) kind(err error) error {
	switch {
	case r.stream.N <= 0:
		return fmt.Errorf("too large: %w", errdefs.ErrResourceExhausted)
	case errors.Is(err, tar.ErrHeader), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}

// entry takes one entry by its very name: there is one way to write each.
func (r *reader) entry(h *tar.Header, in io.Reader) error {
	if h.Typeflag == tar.TypeDir && h.Name == ImagesName+"/" {
		return nil
	}
	if h.Typeflag != tar.TypeReg {
		return fmt.Errorf("entry %.140q is no regular file: %w", h.Name, errdefs.ErrInvalidArgument)
	}
	for record := range h.PAXRecords {
		// A file with holes becomes larger than the stream that bounds it.
		if strings.HasPrefix(record, "GNU.sparse.") {
			return fmt.Errorf("entry %.140q has holes: %w", h.Name, errdefs.ErrInvalidArgument)
		}
	}
	if r.seen[h.Name] {
		return fmt.Errorf("entry %.140q repeats: %w", h.Name, errdefs.ErrInvalidArgument)
	}
	r.seen[h.Name] = true
	image, isImage := strings.CutPrefix(h.Name, ImagesName+"/")
	switch {
	case h.Name == ConfigName:
		return decode(h, in, &r.Config)
	case h.Name == SpecName:
		r.Spec = &specs.Spec{}
		return decode(h, in, r.Spec)
	case h.Name == RootfsName:
		r.Rootfs = true
		return r.store(RootfsName, in)
	case isImage && imagePattern.MatchString(image):
		r.images = true
		return r.store(h.Name, in)
	case ignored[h.Name]:
		return nil
	}
	return fmt.Errorf("entry %.140q is unknown: %w", h.Name, errdefs.ErrInvalidArgument)
}

func decode(h *tar.Header, in io.Reader, v any) error {
	if h.Size > jsonLimit {
		return fmt.Errorf("%s is larger than %d bytes: %w", h.Name, jsonLimit, errdefs.ErrResourceExhausted)
	}
	if err := json.NewDecoder(in).Decode(v); err != nil {
		return fmt.Errorf("decode %s: %w: %w", h.Name, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// store writes a file that must be new. No size is believed beforehand.
func store(root *os.Root, name string, in io.Reader) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in)
	return errors.Join(err, f.Close())
}
