package unpack

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/snapshotter/erofs"
)

// parent returns the directory that an entry goes to, which is made when it
// is not there.
func (t *tree) parent(ctx context.Context, rel string) (*place, string, error) {
	dir, base := split(rel)
	at, err := t.walk(ctx, dir)
	if err != nil {
		return nil, "", fmt.Errorf("open its directory: %w", err)
	}
	return at, base, nil
}

// walk resolves a path in the image as it is so far, this layer upon those
// below, and makes the directories that this layer lacks.
func (t *tree) walk(ctx context.Context, dir string) (*place, error) {
	if t.last != nil && t.lastPath == dir {
		return t.last, nil
	}
	w := treeWalk{t: t, steps: []*place{{dir: t.root, shines: t.get != nil && !t.rootOpaque}}}
	if dir != "" {
		w.todo = strings.Split(dir, "/")
	}
	for len(w.todo) > 0 {
		if err := w.next(ctx); err != nil {
			return nil, err
		}
	}
	t.last, t.lastPath = w.at(), dir
	return t.last, nil
}

// treeWalk is the state of one walk.
type treeWalk struct {
	t    *tree
	todo []string
	// steps are the directories gone into, the root first.
	steps []*place
	links int
}

func (w *treeWalk) at() *place { return w.steps[len(w.steps)-1] }

// next goes one name on.
func (w *treeWalk) next(ctx context.Context) error {
	name := w.todo[0]
	w.todo = w.todo[1:]
	switch {
	case name == "" || name == ".":
		return nil
	case name == "..":
		w.steps = w.steps[:max(1, len(w.steps)-1)]
		return nil
	}
	next, link, err := w.t.step(ctx, w.at(), name)
	if err != nil {
		return err
	}
	if link == "" {
		w.steps = append(w.steps, next)
		return nil
	}
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	if strings.HasPrefix(link, "/") {
		w.steps = w.steps[:1]
	}
	w.todo = append(strings.Split(link, "/"), w.todo...)
	if len(w.todo)+len(w.steps) > w.t.limits.Depth {
		return unix.ENAMETOOLONG
	}
	return nil
}

// step goes from a directory to the one called name in it, or returns where
// the symbolic link of that name leads.
func (t *tree) step(ctx context.Context, at *place, name string) (*place, string, error) {
	e, ok := at.dir.Entries[name]
	switch {
	case !ok:
		return t.stepBelow(ctx, at, name)
	case e.Dir != nil:
		return at.into(name, e.Dir, at.shines && !isHiding(e.Dir)), "", nil
	case e.Type == erofs.TypeSymlink:
		return nil, e.Target, nil
	case isDeleted(e):
		// What was there is deleted, and now something comes in its place.
		next, err := t.makeStep(at, name, plainDir(), false)
		if err == nil {
			t.hide(next.dir)
		}
		return next, "", err
	}
	return nil, "", notDirectory(strings.Join(at.names(name), "/"))
}

// into is the place one name further on.
func (p *place) into(name string, dir *erofs.Dir, shines bool) *place {
	return &place{dir: dir, shines: shines, path: p.names(name)}
}

// names is the path of an entry.
func (p *place) names(name string) []string {
	return append(p.path[:len(p.path):len(p.path)], name)
}

// stepBelow is step for a name that this layer does not have.
func (t *tree) stepBelow(ctx context.Context, at *place, name string) (*place, string, error) {
	f, err := t.lookupName(ctx, at, name)
	if err != nil {
		return nil, "", err
	}
	if f == nil {
		next, err := t.makeStep(at, name, plainDir(), false)
		return next, "", err
	}
	defer f.close()
	switch f.st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		attr, err := f.attr()
		if err != nil {
			return nil, "", err
		}
		next, err := t.makeStep(at, name, attr, true)
		return next, "", err
	case unix.S_IFLNK:
		link, err := readlinkat(f.dir, name)
		return nil, link, err
	}
	return nil, "", notDirectory(strings.Join(at.names(name), "/") + " in a layer below")
}

// makeStep makes a directory that the layer has no entry for.
func (t *tree) makeStep(at *place, name string, attr erofs.Attr, shines bool) (*place, error) {
	dir, err := t.newDir(attr)
	if err != nil {
		return nil, err
	}
	if err := t.set(at, name, erofs.Entry{Type: erofs.TypeDirectory, Dir: dir}); err != nil {
		return nil, err
	}
	return at.into(name, dir, shines), nil
}

// lookupName finds a name of a directory of this layer in those below.
func (t *tree) lookupName(ctx context.Context, at *place, name string) (*found, error) {
	if !at.shines {
		return nil, nil
	}
	return t.lookup(ctx, at.names(name))
}

// attr is what something found below has beside its content.
func (f *found) attr() (erofs.Attr, error) {
	a := erofs.Attr{Mode: f.st.Mode, UID: f.st.Uid, GID: f.st.Gid, Mtime: time.Unix(f.st.Mtim.Unix())}
	kind := f.st.Mode & unix.S_IFMT
	if kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return a, nil
	}
	fd, err := unix.Openat(f.dir, f.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return a, err
	}
	defer unix.Close(fd)
	a.Xattrs, err = readXattrs(fd)
	return a, err
}

// readXattrs reads the wanted xattrs.
func readXattrs(fd int) (map[string]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Flistxattr(fd, buf)
	if err != nil || n == 0 {
		return nil, ignoreUnsupported(err)
	}
	xattrs := map[string]string{}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if !wantedXattr(name) {
			continue
		}
		size, err := unix.Fgetxattr(fd, name, value)
		if err != nil {
			return nil, err
		}
		xattrs[name] = string(value[:size])
	}
	return xattrs, nil
}
