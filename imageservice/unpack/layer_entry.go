package unpack

import (
	"archive/tar"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func (l *layer) makeRoot(attr attributes) error {
	l.rootSet = true
	l.dirs[""] = attr.mtime
	return attr.apply(l.root)
}

// clear makes way for an entry that found something of its name. It may close
// the directories the layer keeps open; dir must be none of them.
func (l *layer) clear(dir int, base, path string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if isWhiteout(&st) {
		l.inodes--
		return unix.Unlinkat(dir, base, 0)
	}
	l.replaced = true
	l.sums.remove(path)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR || st.Mode&unix.S_IFMT == unix.S_IFLNK {
		// Paths that led through it lead elsewhere from now on.
		l.forgetOpen()
	}
	return removeAll(dir, base)
}

// create calls do, and once more with the way free if something of its name
// is there. do must not use a descriptor of the layer but the one it gets.
func (l *layer) create(dir int, base string, do func(dir int) error) error {
	err := do(dir)
	if err != unix.EEXIST {
		return err
	}
	path := l.in(base)
	own, err := dup(dir)
	if err != nil {
		return err
	}
	defer unix.Close(own)
	if err := l.clear(own, base, path); err != nil {
		return err
	}
	return do(own)
}

func (l *layer) makeDir(dir int, rel string, attr attributes) error {
	_, base := split(rel)
	fd, err := l.newDir(dir, base, attr.mode&0o777)
	if err != nil {
		return err
	}
	if err := attr.apply(fd); err != nil {
		unix.Close(fd)
		return err
	}
	// Its entries come next, as a rule.
	l.keep(rel, openDir{fd, l.in(base)})
	return l.noteDir(rel, attr.mtime)
}

// newDir makes a directory, or takes the one that is there, and opens it. In
// place of anything else it hides what is below.
func (l *layer) newDir(dir int, base string, mode uint32) (int, error) {
	err := unix.Mkdirat(dir, base, mode)
	if err != nil && err != unix.EEXIST {
		return -1, err
	}
	fd, oerr := openDirAt(dir, base)
	if err == nil || oerr != unix.ENOTDIR && oerr != unix.ELOOP {
		return fd, oerr
	}
	err = l.create(dir, base, func(dir int) error {
		if err := unix.Mkdirat(dir, base, mode); err != nil {
			return err
		}
		if fd, err = openDirAt(dir, base); err != nil {
			return err
		}
		if l.opts.Lowers == nil {
			return nil
		}
		return setOpaque(fd)
	})
	return fd, err
}

func (l *layer) makeFile(dir int, base string, hdr *tar.Header, attr attributes, content io.Reader) error {
	path := l.in(base)
	return l.create(dir, base, func(dir int) error {
		fd, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, attr.mode&0o777)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		sum, err := l.fill(fd, hdr, content)
		if err != nil {
			return err
		}
		l.sums.add(path, hdr.Size, sum)
		return l.finishFile(fd, attr)
	})
}

// finishFile gives a file what it does not have yet: most belong to root and
// have a mode that the umask lets through.
func (l *layer) finishFile(fd int, attr attributes) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if int(st.Uid) != attr.uid || int(st.Gid) != attr.gid || st.Mode&0o7777 != attr.mode || len(attr.xattrs) > 0 {
		if err := attr.apply(fd); err != nil {
			return err
		}
		// Xattrs may take a block.
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
	}
	l.bytes += st.Blocks * 512
	l.inodes++
	return futimes(fd, attr.mtime)
}

// writeAhead is how much of a file is written before its way to the disk
// begins, so that the sync in the end does not wait for all of it.
const writeAhead = 4 << 20

// startWriting has the disk write what was written of a file. It is advice: the
// sync in the end is what counts.
func startWriting(fd int, from, to int64) {
	_ = unix.SyncFileRange(fd, from, to-from, unix.SYNC_FILE_RANGE_WRITE)
}

// in is the path, without links, of a name in the directory that parent
// returned last.
func (l *layer) in(base string) string {
	if l.parentPath == "" {
		return base
	}
	return l.parentPath + "/" + base
}

// fill writes a file's content, leaving out the holes of sparse ones, and
// returns its CRC-32C.
func (l *layer) fill(fd int, hdr *tar.Header, content io.Reader) (sum uint32, err error) {
	sparse := isSparse(hdr)
	var off, started int64
	for {
		n, err := io.ReadFull(content, l.buf)
		chunk := l.buf[:n]
		sum = crc32.Update(sum, castagnoli, chunk)
		if sparse && allZero(chunk) {
			off += int64(n)
			chunk = nil
		}
		for len(chunk) > 0 {
			w, err := unix.Pwrite(fd, chunk, off)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return 0, err
			}
			off += int64(w)
			chunk = chunk[w:]
		}
		if off-started >= writeAhead {
			startWriting(fd, started, off)
			started = off
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF && off == hdr.Size {
			break
		}
		if err != nil {
			return 0, streamError(err)
		}
	}
	if sparse {
		return sum, unix.Ftruncate(fd, off)
	}
	return sum, nil
}

// isSparse tells whether an entry was packed without its holes.
func isSparse(hdr *tar.Header) bool {
	sparse := hdr.Typeflag == tar.TypeGNUSparse
	for key := range hdr.PAXRecords {
		sparse = sparse || strings.HasPrefix(key, "GNU.sparse.")
	}
	return sparse
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// tally counts a new inode.
func (l *layer) tally(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	l.bytes += st.Blocks * 512
	l.inodes++
	return nil
}

func (l *layer) makeSymlink(dir int, base, target string, attr attributes) error {
	return l.create(dir, base, func(dir int) error {
		if err := unix.Symlinkat(target, dir, base); err != nil {
			return err
		}
		return l.special(dir, base, attr)
	})
}

func (l *layer) makeNode(dir int, base string, kind uint32, device uint64, attr attributes) error {
	return l.create(dir, base, func(dir int) error {
		if err := unix.Mknodat(dir, base, kind|0o600, int(device)); err != nil {
			return err
		}
		return l.special(dir, base, attr)
	})
}

// special finishes what cannot be opened without a meaning. base was just
// made, and nobody else works in this directory.
func (l *layer) special(dir int, base string, attr attributes) error {
	if err := unix.Fchownat(dir, base, attr.uid, attr.gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if !attr.link {
		if err := unix.Fchmodat(dir, base, attr.mode, 0); err != nil {
			return err
		}
	}
	ts, err := times(attr.mtime)
	if err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(dir, base, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	l.bytes += st.Blocks * 512
	l.inodes++
	return nil
}

// link makes a hard link to a file of this layer, or of one below.
func (l *layer) link(ctx context.Context, rel, to string) error {
	from, toBase, err := l.targetDir(ctx, to)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	var st unix.Stat_t
	err = unix.Fstatat(from, toBase, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT && l.opts.Lowers != nil {
		if err = l.copyUp(ctx, to); err == nil {
			err = unix.Fstatat(from, toBase, &st, unix.AT_SYMLINK_NOFOLLOW)
		}
	}
	switch {
	case err == unix.ENOENT || err == nil && isWhiteout(&st):
		return fmt.Errorf("nothing is there: %w", errdefs.ErrInvalidArgument)
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return fmt.Errorf("it is a directory: %w", errdefs.ErrInvalidArgument)
	}
	dir, base, err := l.parent(ctx, rel)
	if err != nil {
		return err
	}
	return l.create(dir, base, func(dir int) error {
		return unix.Linkat(from, toBase, dir, base, 0)
	})
}

// targetDir opens the directory of a link's target; the caller closes it,
// since what the layer keeps open may go meanwhile.
func (l *layer) targetDir(ctx context.Context, to string) (int, string, error) {
	dir, base, err := l.parent(ctx, to)
	if err != nil {
		return -1, "", err
	}
	own, err := dup(dir)
	return own, base, err
}
