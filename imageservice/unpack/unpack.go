// Package unpack puts the tar stream of an image layer into the directory of
// a snapshot, in the format of an overlayfs upper directory, without mounting
// anything: a deleted file is a character device 0:0, a directory that hides
// what is below it carries the xattr trusted.overlay.opaque.
//
// # Layers are hostile
//
// Every path is resolved by openat2(2) inside the layer's directory, names
// that climb out of it are refused, and no link of any kind leads anywhere
// else. Xattrs are taken from a short list, so that none means something to
// overlayfs. Entries, bytes and depth have bounds.
//
// # Layers below
//
// A layer is unpacked without those below it, at the same time as they are.
// Three things need them, and wait for them by Options.Lowers: a parent
// directory that the layer has no entry for (it must look as it did below,
// or may be a symbolic link there), a hard link to a file of a lower layer
// (which is copied up), and the root directory of a layer without an entry
// for it, which the caller sets (see Result.RootSet).
package unpack

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Options say where a layer goes and what is below it.
type Options struct {
	// Dir is the existing, empty directory of the snapshot.
	Dir string
	// Lowers returns the layers below, the nearest first, when they are
	// unpacked. They stay its owner's. Nil means that there are none.
	Lowers func(context.Context) ([]*Lower, error)
	// Limits bounds what a layer may hold; zero fields mean the defaults.
	Limits Limits
}

// Limits are the bounds of one layer.
type Limits struct {
	// Entries and Dirs bound the tar entries, and the directories among
	// them: 2 million and half a million.
	Entries, Dirs int
	// Bytes bounds the sum of file sizes, holes included: 128 GiB.
	Bytes int64
	// Depth bounds the components of a path: 512.
	Depth int
	// Names bounds the bytes of names, targets of links and xattrs, much of
	// which is kept in memory until the layer is whole: 256 MiB.
	Names int64
	// KeepFree is how many bytes of the filesystem a layer leaves to others:
	// 64 MiB. What unpacks to more than the disk has is refused before the
	// disk is full.
	KeepFree int64
}

func (l Limits) withDefaults() Limits {
	if l.Entries <= 0 {
		l.Entries = 2 << 20
	}
	if l.Dirs <= 0 {
		l.Dirs = 512 << 10
	}
	if l.Bytes <= 0 {
		l.Bytes = 128 << 30
	}
	if l.Depth <= 0 {
		l.Depth = 512
	}
	if l.Names <= 0 {
		l.Names = 256 << 20
	}
	if l.KeepFree <= 0 {
		l.KeepFree = 64 << 20
	}
	return l
}

// stream bounds the uncompressed stream: the files and a generous share of
// headers and padding.
func (l Limits) stream() int64 {
	return l.Bytes + int64(l.Entries)*4096
}

// Result tells what was unpacked.
type Result struct {
	// DiffID is the digest of the uncompressed stream.
	DiffID digest.Digest
	// Bytes and Inodes are what it takes on the disk. They are negative
	// when entries replaced each other, so that somebody has to look.
	Bytes, Inodes int64
	// RootSet is true when the layer had an entry for its root directory.
	RootSet bool
	// Sums are the checksums of the files of a directory, for Verify.
	Sums []byte
}

// Apply unpacks one layer: a tar stream, plain or compressed by gzip or zstd.
// It closes r, also to end a read that waits. On an error the directory holds
// something unfinished that the caller removes with the snapshot.
func Apply(ctx context.Context, r io.ReadCloser, opts Options) (Result, error) {
	defer r.Close()
	limits := opts.Limits.withDefaults()
	l, err := openLayer(opts, limits)
	if err != nil {
		return Result{}, err
	}
	defer l.close()
	diffID, err := feed(ctx, r, &l.budget, entryTo(l, &l.budget))
	if err != nil {
		return Result{}, err
	}
	res, err := l.finish(ctx)
	if err != nil {
		return Result{}, err
	}
	res.DiffID = diffID
	return res, nil
}

// feed gives all entries of a stream, which it closes, to a function, and
// returns the digest of its plain form.
func feed(ctx context.Context, r io.ReadCloser, b *budget, entry func(context.Context, *tar.Header, io.Reader) error) (digest.Digest, error) {
	plain, err := Decompress(r)
	if err != nil {
		return "", err
	}
	ahead := readAhead(plain)
	// In this order: closing r ends what ahead waits for.
	defer ahead.wait()
	defer r.Close()

	hash := sha256.New()
	stream := io.TeeReader(&bounded{r: ahead, left: b.limits.stream()}, hash)
	if err := b.entriesOf(ctx, tar.NewReader(stream), entry); err != nil {
		return "", err
	}
	// The digest covers the padding behind the archive too.
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return "", streamError(err)
	}
	return digest.NewDigest(digest.SHA256, hash), nil
}

// budget counts what comes against the limits.
type budget struct {
	limits Limits
	// disk is something open on the filesystem that is written to.
	disk        int
	entries     int
	size, names int64
	// unseen is what came since the last look at the room on the disk.
	unseen int64
}

// entriesOf goes through an archive.
func (b *budget) entriesOf(ctx context.Context, tr *tar.Reader, entry func(context.Context, *tar.Header, io.Reader) error) error {
	content := &rationed{ctx, tr, b}
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		hdr, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return streamError(err)
		}
		if err := b.count(hdr); err != nil {
			return err
		}
		if err := entry(ctx, hdr, content); err != nil {
			return fmt.Errorf("unpack %q: %w", shorten(hdr.Name), err)
		}
	}
}

// streamError gives what tar says about bad input a kind.
func streamError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) || errors.Is(err, tar.ErrWriteTooLong) {
		return fmt.Errorf("read layer: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("read layer: it is cut short: %w", errdefs.ErrDataLoss)
	}
	if isCorrupt(err) {
		return fmt.Errorf("read layer: it does not decompress: %w: %w", err, errdefs.ErrDataLoss)
	}
	return fmt.Errorf("read layer: %w", err)
}

func (b *budget) count(hdr *tar.Header) error {
	b.entries++
	if b.entries > b.limits.Entries {
		return fmt.Errorf("a layer of more than %d entries: %w", b.limits.Entries, errdefs.ErrInvalidArgument)
	}
	// Sizes are never negative; the sum cannot overflow before it is over.
	if hdr.Size > b.limits.Bytes-b.size {
		return fmt.Errorf("a layer of more than %d bytes: %w", b.limits.Bytes, errdefs.ErrInvalidArgument)
	}
	b.size += hdr.Size
	if err := b.name(len(hdr.Name) + len(hdr.Linkname)); err != nil {
		return err
	}
	// A block for the entry, whatever is in it.
	return b.spend(4096)
}

// name counts bytes that are kept in memory.
func (b *budget) name(n int) error {
	if b.names += int64(n); b.names > b.limits.Names {
		return fmt.Errorf("a layer whose names and xattrs take more than %d bytes: %w", b.limits.Names, errdefs.ErrInvalidArgument)
	}
	return nil
}

// spendStep is how much may come between two looks at the room on the disk.
const spendStep = 4 << 20

// spend counts what is written, and makes sure that the disk is not filled to
// its end, where not even what was unpacked could be removed.
func (b *budget) spend(n int64) error {
	if b.unseen += n; b.unseen < spendStep {
		return nil
	}
	b.unseen = 0
	var st unix.Statfs_t
	if err := unix.Fstatfs(b.disk, &st); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < b.limits.KeepFree {
		return fmt.Errorf("only %d bytes are left on the disk: %w", free, errdefs.ErrResourceExhausted)
	}
	return nil
}

// rationed is the content of files: it ends with the context, since holes come
// without anybody waiting for them, and while there is room on the disk.
type rationed struct {
	ctx context.Context
	r   io.Reader
	b   *budget
}

func (c *rationed) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(p)
	if serr := c.b.spend(int64(n)); serr != nil {
		return n, serr
	}
	return n, err
}

// clean makes an entry's name relative to the root; the root is "". It
// refuses names that climb above it.
func (b *budget) clean(name string) (string, error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", fmt.Errorf("a name with a zero byte: %w", errdefs.ErrInvalidArgument)
	}
	rel := path.Clean(strings.TrimLeft(name, "/"))
	switch {
	case rel == "." || rel == "/":
		return "", nil
	case rel == ".." || strings.HasPrefix(rel, "../"):
		return "", fmt.Errorf("a path that leads out of the image: %w", errdefs.ErrInvalidArgument)
	case len(rel) >= unix.PathMax:
		return "", fmt.Errorf("a path of %d bytes: %w", len(rel), errdefs.ErrInvalidArgument)
	case strings.Count(rel, "/") >= b.limits.Depth:
		return "", fmt.Errorf("a path of more than %d components: %w", b.limits.Depth, errdefs.ErrInvalidArgument)
	}
	return rel, nil
}

func split(rel string) (dir, base string) {
	i := strings.LastIndexByte(rel, '/')
	if i < 0 {
		return "", rel
	}
	return rel[:i], rel[i+1:]
}

// shorten keeps error messages readable.
func shorten(name string) string {
	if len(name) > 200 {
		return name[:200] + "…"
	}
	return name
}
