package unpack

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Lower is an unpacked layer, as those above it see it; several may look into
// it at once. What they learn of its directories is kept: where entries lack
// their parents, each layer of an image asks all below it for the same names.
type Lower struct {
	root int

	// mu guards what follows. It is held over system calls that look into
	// one directory, so that nobody looks a second time.
	mu sync.Mutex
	// known are directories by their path; the root has none.
	known map[string]*lowerDir
	// names is how many names known directories list.
	names int
}

// lowerDir is a directory of a lower layer.
type lowerDir struct {
	// opaque says that it, or one above it, hides what is in the layers below.
	opaque bool
	// names are those in it; nil when they are too many to be kept.
	names map[string]bool
}

const (
	// maxKnownDirs and maxKnownNames bound the memory of one lower layer.
	maxKnownDirs  = 64
	maxKnownNames = 1024
)

// OpenLower opens the directory of a layer, which must not change any more
// but for the attributes of the directory itself. Close it.
func OpenLower(dir string) (*Lower, error) {
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open layer", Path: dir, Err: err}
	}
	return &Lower{root: root, known: map[string]*lowerDir{}}, nil
}

// Close ends looking into the layer.
func (l *Lower) Close() { unix.Close(l.root) }

// OpenLowers opens several layers, or none.
func OpenLowers(dirs []string) ([]*Lower, error) {
	lowers := make([]*Lower, 0, len(dirs))
	for _, dir := range dirs {
		l, err := OpenLower(dir)
		if err != nil {
			CloseLowers(lowers)
			return nil, err
		}
		lowers = append(lowers, l)
	}
	return lowers, nil
}

// CloseLowers closes several layers.
func CloseLowers(lowers []*Lower) {
	for _, l := range lowers {
		l.Close()
	}
}

// found is something in a layer below.
type found struct {
	// dir is the directory it is in, owned by this.
	dir  int
	name string
	st   unix.Stat_t
}

func (f *found) close() { unix.Close(f.dir) }

// lookup looks for a path without links. last says that layers below this one
// do not matter.
func (l *Lower) lookup(path []string) (f *found, last bool, err error) {
	parents, name := path[:len(path)-1], path[len(path)-1]
	l.mu.Lock()
	d, last, err := l.directory(parents)
	l.mu.Unlock()
	if err != nil || d == nil {
		return nil, last, err
	}
	if d.names != nil && !d.names[name] {
		return nil, d.opaque, nil
	}
	f = &found{name: name}
	if f.dir, err = l.open(parents); err != nil {
		return nil, false, err
	}
	err = unix.Fstatat(f.dir, name, &f.st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && !isWhiteout(&f.st) {
		return f, true, nil
	}
	f.close()
	if err == unix.ENOENT {
		return nil, d.opaque, nil
	}
	return nil, true, err
}

// directory finds out about a directory. Nil is for one that is not there; last
// is as in lookup. mu is held.
func (l *Lower) directory(path []string) (d *lowerDir, last bool, err error) {
	key := strings.Join(path, "/")
	if d := l.known[key]; d != nil {
		return d, d.opaque, nil
	}
	above := &lowerDir{}
	if len(path) > 0 {
		above, last, err = l.directory(path[:len(path)-1])
		if above == nil || err != nil {
			return nil, last, err
		}
		if above.names != nil && !above.names[path[len(path)-1]] {
			return nil, above.opaque, nil
		}
	}
	fd, err := l.open(path)
	switch {
	case err == unix.ENOENT:
		return nil, above.opaque, nil
	case err == unix.ENOTDIR || err == unix.ELOOP:
		// A whiteout, a file, a link.
		return nil, true, nil
	case err != nil:
		return nil, false, err
	}
	defer unix.Close(fd)
	d = &lowerDir{opaque: above.opaque || isOpaque(fd)}
	if len(l.known) < maxKnownDirs {
		d.names, err = namesIn(fd, maxKnownNames-l.names)
		l.names += len(d.names)
		l.known[key] = d
	}
	return d, d.opaque, err
}

// namesIn lists an open directory, unless it has more names than are wanted.
func namesIn(fd, most int) (map[string]bool, error) {
	var list []string
	buf := make([]byte, 8<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		_, _, list = unix.ParseDirent(buf[:n], -1, list)
		if len(list) > most {
			return nil, nil
		}
	}
	names := make(map[string]bool, len(list))
	for _, name := range list {
		names[name] = true
	}
	return names, nil
}

// open opens a directory of the layer; links are not followed.
func (l *Lower) open(path []string) (int, error) {
	switch len(path) {
	case 0:
		return openDirAt(l.root, ".")
	case 1:
		return openDirAt(l.root, path[0])
	}
	return openDirIn(l.root, strings.Join(path, "/"), unix.RESOLVE_NO_SYMLINKS)
}

// below are the layers below one.
type below struct {
	// get is Options.Lowers.
	get func(context.Context) ([]*Lower, error)
	// lowers are known once they were needed, the nearest first.
	lowers []*Lower
	waited bool
}

// wait waits for the layers below, once.
func (b *below) wait(ctx context.Context) (err error) {
	if b.waited || b.get == nil {
		return nil
	}
	if b.lowers, err = b.get(ctx); err != nil {
		return fmt.Errorf("wait for the layers below: %w", err)
	}
	b.waited = true
	return nil
}

// lookup finds a path without links in the layers below, as overlayfs would.
// Nil means that it is not there.
func (b *below) lookup(ctx context.Context, path []string) (*found, error) {
	if err := b.wait(ctx); err != nil {
		return nil, err
	}
	for _, l := range b.lowers {
		f, last, err := l.lookup(path)
		if err != nil || f != nil || last {
			return f, err
		}
	}
	return nil, nil
}

// eachInRoot calls f for the names in the root directories of the layers below,
// for some more than once.
func (b *below) eachInRoot(ctx context.Context, f func(name string) error) error {
	if err := b.wait(ctx); err != nil {
		return err
	}
	for _, l := range b.lowers {
		fd, err := openDirAt(l.root, ".")
		if err != nil {
			return err
		}
		dir := os.NewFile(uintptr(fd), "root")
		names, err := dir.Readdirnames(-1)
		dir.Close()
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := f(name); err != nil {
				return err
			}
		}
	}
	return nil
}
