package imageservice

import (
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/imageservice/unpack"
	"golang.org/x/sys/unix"
)

const (
	// maxArchive bounds what an archive unpacks to, in bytes.
	maxArchive = 256 << 30
	// spoolStep is how much is written between two looks at the space left.
	spoolStep = 64 << 20
	// maxReserve is how much space an archive leaves to others at most; on
	// a small filesystem it is a twentieth.
	maxReserve = 1 << 30
)

// spool writes a stream, decompressed, into a file without a name. An archive
// must be read in another order than it comes in.
func (s *Store) spool(r io.Reader) (*os.File, error) {
	plain, err := unpack.Decompress(r)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	f, err := s.content.Spool()
	if err != nil {
		return nil, err
	}
	if err := fill(f, plain); err != nil {
		f.Close()
		return nil, fmt.Errorf("take in archive: %w", err)
	}
	return f, nil
}

// fill writes a file, and stops before it is too much.
func fill(f *os.File, r io.Reader) error {
	buf := make([]byte, 256<<10)
	for total := int64(0); ; {
		if err := checkSpace(f); err != nil {
			return err
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{f}, io.LimitReader(r, spoolStep), buf)
		total += n
		if err != nil {
			return err
		}
		if n < spoolStep {
			return nil
		}
		if total > maxArchive {
			return fmt.Errorf("it unpacks to more than %d bytes: %w", int64(maxArchive), errdefs.ErrInvalidArgument)
		}
	}
}

// checkSpace refuses to fill the last of a filesystem, which others need.
func checkSpace(f *os.File) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	reserve := min(fs.Blocks*uint64(fs.Bsize)/20, maxReserve)
	if left := fs.Bavail * uint64(fs.Bsize); left < reserve+spoolStep {
		return fmt.Errorf("%d bytes of disk space are left: %w", left, errdefs.ErrResourceExhausted)
	}
	return nil
}
