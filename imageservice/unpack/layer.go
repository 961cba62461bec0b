package unpack

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// layer is a directory being filled. It is for one goroutine.
type layer struct {
	budget
	below
	opts Options
	// root is the layer's directory.
	root int
	// open are directories that entries went to lately, by the path they
	// were named by; recent is the order they came in.
	open   map[string]openDir
	recent []string
	// parentPath is that of the directory that parent returned last, without
	// links.
	parentPath string
	sums       sums
	// dirs are the directories made, with the modification time they get
	// in the end; zero leaves it.
	dirs    map[string]time.Time
	buf     []byte
	rootSet bool
	// rootOpaque says that nothing of the layers below is to be seen.
	rootOpaque bool
	// whiteouts are those made, by the path of their directory.
	whiteouts map[string][]string
	// bytes and inodes are the usage of all but directories. replaced is
	// set when an entry took the place of another and they are not right.
	bytes, inodes int64
	replaced      bool
}

// openDirs is how many directories are kept open.
const openDirs = 64

func openLayer(opts Options, limits Limits) (*layer, error) {
	root, err := unix.Open(opts.Dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: opts.Dir, Err: err}
	}
	return &layer{
		budget: budget{limits: limits, disk: root}, below: below{get: opts.Lowers}, opts: opts, root: root,
		open:      map[string]openDir{},
		dirs:      map[string]time.Time{"": {}},
		whiteouts: map[string][]string{},
		buf:       bufPool.Get().([]byte),
	}, nil
}

// bufPool has the buffers of layers that are done.
var bufPool = sync.Pool{New: func() any { return make([]byte, 256<<10) }}

func (l *layer) close() {
	bufPool.Put(l.buf)
	l.forgetOpen()
	unix.Close(l.root)
}

// forgetOpen closes the kept directories, which may have been replaced.
func (l *layer) forgetOpen() {
	for _, d := range l.open {
		unix.Close(d.fd)
	}
	clear(l.open)
	l.recent = l.recent[:0]
}

// openDir is a directory that is kept open, and its path without links.
type openDir struct {
	fd   int
	path string
}

// keep remembers an open directory, which it owns from here on.
func (l *layer) keep(dir string, d openDir) {
	if old, ok := l.open[dir]; ok {
		unix.Close(old.fd)
		l.open[dir] = d
		return
	}
	if len(l.recent) >= openDirs {
		unix.Close(l.open[l.recent[0]].fd)
		delete(l.open, l.recent[0])
		l.recent = l.recent[1:]
	}
	l.open[dir] = d
	l.recent = append(l.recent, dir)
}

// parent returns the directory that an entry goes to, which is made when it
// is not there. The descriptor belongs to the layer.
func (l *layer) parent(ctx context.Context, rel string) (fd int, base string, err error) {
	dir, base := split(rel)
	fd, err = l.dir(ctx, dir)
	return fd, base, err
}

func (l *layer) dir(ctx context.Context, dir string) (int, error) {
	l.parentPath = ""
	if dir == "" {
		return l.root, nil
	}
	if d, ok := l.open[dir]; ok {
		l.parentPath = d.path
		return d.fd, nil
	}
	d := openDir{path: dir}
	var err error
	d.fd, err = openDirIn(l.root, dir, unix.RESOLVE_NO_SYMLINKS)
	if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
		// Not all of it is in this layer, or it is deleted there, or it
		// leads through links.
		var at step
		at, d.path, err = l.walk(ctx, dir)
		d.fd = at.fd
	}
	if err != nil {
		return -1, fmt.Errorf("open its directory: %w", err)
	}
	l.keep(dir, d)
	l.parentPath = d.path
	return d.fd, nil
}

// maxLinks is how many symbolic links a path may lead through, as in Linux.
const maxLinks = 40

// step is a directory of this layer that walk went into.
type step struct {
	fd int
	// below tells whether what is below this layer shines through.
	below bool
}

// walk resolves a path in the image as it is so far, this layer upon those
// below, and makes the directories that this layer lacks. It returns the
// directory, owned by the caller, and its path without links.
func (l *layer) walk(ctx context.Context, dir string) (at step, resolved string, err error) {
	w := walker{l: l, todo: strings.Split(dir, "/")}
	fd, err := dup(l.root)
	if err != nil {
		return step{fd: -1}, "", err
	}
	w.steps = []step{{fd, l.opts.Lowers != nil && !l.rootOpaque}}
	for len(w.todo) > 0 && err == nil {
		err = w.next(ctx)
	}
	if err != nil {
		w.back(len(w.steps))
		return step{fd: -1}, "", err
	}
	at, resolved = w.steps[len(w.steps)-1], strings.Join(w.path, "/")
	w.steps = w.steps[:len(w.steps)-1]
	w.back(len(w.steps))
	return at, resolved, nil
}

// walker is the state of one walk.
type walker struct {
	l *layer
	// todo are the names still to go, path those gone, without links.
	todo, path []string
	// steps are the directories gone into, the root first.
	steps []step
	links int
}

// back leaves the last n directories.
func (w *walker) back(n int) {
	keep := len(w.steps) - n
	for _, s := range w.steps[keep:] {
		unix.Close(s.fd)
	}
	w.steps = w.steps[:keep]
	w.path = w.path[:min(len(w.path), max(keep-1, 0))]
}

// next goes one name on.
func (w *walker) next(ctx context.Context) error {
	name := w.todo[0]
	w.todo = w.todo[1:]
	switch {
	case name == "" || name == ".":
		return nil
	case name == ".." && len(w.steps) > 1:
		w.back(1)
		return nil
	case name == "..":
		return nil
	}
	next, link, err := w.l.step(ctx, w.steps[len(w.steps)-1], w.path, name)
	if err != nil {
		return err
	}
	if link == "" {
		w.path, w.steps = append(w.path, name), append(w.steps, next)
		return nil
	}
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	if strings.HasPrefix(link, "/") {
		w.back(len(w.steps) - 1)
	}
	w.todo = append(strings.Split(link, "/"), w.todo...)
	if len(w.todo)+len(w.path) > w.l.limits.Depth {
		return unix.ENAMETOOLONG
	}
	return nil
}

// notDirectory is what stands in the way of a path.
type notDirectory string

func (e notDirectory) Error() string {
	return string(e) + " is not a directory: " + errdefs.ErrInvalidArgument.Error()
}

func (e notDirectory) Unwrap() error { return errdefs.ErrInvalidArgument }

// step goes from a directory to the one called name in it, or returns where
// the symbolic link of that name leads.
func (l *layer) step(ctx context.Context, at step, path []string, name string) (step, string, error) {
	var st unix.Stat_t
	err := unix.Fstatat(at.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == unix.ENOENT:
		return l.stepBelow(ctx, at, path, name)
	case err != nil:
		return step{}, "", err
	case isWhiteout(&st):
		// What was there is deleted, and now something comes in its place.
		if err := unix.Unlinkat(at.fd, name, 0); err != nil {
			return step{}, "", err
		}
		l.inodes--
		next, err := l.makeStep(at, path, name, nil)
		if err != nil {
			return step{}, "", err
		}
		return next, "", setOpaque(next.fd)
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		link, err := readlinkat(at.fd, name)
		return step{}, link, err
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return step{}, "", notDirectory(strings.Join(append(path, name), "/"))
	}
	fd, err := openDirAt(at.fd, name)
	if err != nil {
		return step{}, "", err
	}
	return step{fd, at.below && !isOpaque(fd)}, "", nil
}

// stepBelow is step for a name that this layer does not have.
func (l *layer) stepBelow(ctx context.Context, at step, path []string, name string) (step, string, error) {
	var f *found
	if at.below {
		var err error
		if f, err = l.lookup(ctx, append(path[:len(path):len(path)], name)); err != nil {
			return step{}, "", err
		}
	}
	if f == nil {
		next, err := l.makeStep(at, path, name, nil)
		return next, "", err
	}
	defer f.close()
	switch f.st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		next, err := l.makeStep(at, path, name, f)
		return next, "", err
	case unix.S_IFLNK:
		link, err := readlinkat(f.dir, name)
		return step{}, link, err
	}
	return step{}, "", notDirectory(strings.Join(append(path, name), "/") + " in a layer below")
}

// makeStep makes a directory that the layer has no entry for: as it is below,
// or plain.
func (l *layer) makeStep(at step, path []string, name string, like *found) (step, error) {
	if err := unix.Mkdirat(at.fd, name, 0o755); err != nil {
		return step{}, err
	}
	fd, err := openDirAt(at.fd, name)
	if err != nil {
		return step{}, err
	}
	rel := strings.Join(append(path[:len(path):len(path)], name), "/")
	mtime := time.Time{}
	if like == nil {
		err = own(fd, 0, 0, 0o755)
	} else {
		mtime = time.Unix(like.st.Mtim.Unix())
		err = like.copyAttributes(fd)
	}
	if err == nil {
		err = l.noteDir(rel, mtime)
	}
	if err != nil {
		unix.Close(fd)
		return step{}, err
	}
	return step{fd, like != nil}, nil
}

// noteDir remembers the modification time a directory gets in the end.
func (l *layer) noteDir(rel string, mtime time.Time) error {
	if _, ok := l.dirs[rel]; !ok && len(l.dirs) >= l.limits.Dirs {
		return fmt.Errorf("a layer of more than %d directories: %w", l.limits.Dirs, errdefs.ErrInvalidArgument)
	}
	l.dirs[rel] = mtime
	// Those above an entry are named by nobody else.
	return l.name(len(rel))
}

// finish sets the times of directories, which the entries in them changed,
// and sums up.
func (l *layer) finish(ctx context.Context) (Result, error) {
	if err := l.prune(ctx); err != nil {
		return Result{}, err
	}
	if l.rootOpaque {
		if err := l.hideRoot(ctx); err != nil {
			return Result{}, fmt.Errorf("hide the layers below: %w", err)
		}
	}
	res := Result{Bytes: l.bytes, Inodes: l.inodes, RootSet: l.rootSet, Sums: l.sums.encode()}
	seen := map[uint64]bool{}
	for rel, mtime := range l.dirs {
		fd, opened, err := l.made(rel)
		if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
			continue // an entry replaced it
		}
		if err != nil {
			return res, &os.PathError{Op: "open", Path: rel, Err: err}
		}
		err = l.finishDir(fd, mtime, seen, &res)
		if opened {
			unix.Close(fd)
		}
		if err != nil {
			return res, &os.PathError{Op: "set times", Path: rel, Err: err}
		}
	}
	if l.replaced {
		res.Bytes, res.Inodes = -1, -1
	}
	return res, nil
}

// made returns a directory by the path that it was made by. One that was opened
// for that is the caller's to close.
func (l *layer) made(rel string) (fd int, opened bool, err error) {
	if rel == "" {
		return l.root, false, nil
	}
	if d, ok := l.open[rel]; ok {
		return d.fd, false, nil
	}
	fd, err = openDirIn(l.root, rel, 0)
	return fd, true, err
}

func (l *layer) finishDir(fd int, mtime time.Time, seen map[uint64]bool, res *Result) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if !seen[st.Ino] {
		seen[st.Ino] = true
		res.Bytes += st.Blocks * 512
		res.Inodes++
	}
	if mtime.IsZero() {
		return nil
	}
	return futimes(fd, mtime)
}
