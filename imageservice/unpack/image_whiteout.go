package unpack

import (
	"context"
	"errors"
	"fmt"
)

// hideBelow makes a directory hide what the layers below have in it.
func (t *tree) hideBelow(at *place) error {
	if at.dir != t.root {
		t.hide(at.dir)
		return nil
	}
	t.rootOpaque = t.get != nil
	t.last = nil
	return nil
}

// whiteout deletes what the layers below have of that name; what this layer
// has stays, whichever came first. parent is the path the directory was found
// by.
func (t *tree) whiteout(at *place, parent, name string) error {
	if t.get == nil {
		return nil
	}
	made, err := t.mark(at, name)
	if made {
		t.whiteouts[parent] = append(t.whiteouts[parent], name)
	}
	return err
}

// mark makes a whiteout, or hides what is below a directory.
func (t *tree) mark(at *place, name string) (made bool, err error) {
	e, ok := at.dir.Entries[name]
	if !ok {
		return true, t.set(at, name, deleted)
	}
	if e.Dir != nil {
		t.hide(e.Dir)
	}
	return false, nil
}

// prune removes whiteouts of what is not there: overlayfs would list them as
// devices in a directory that it need not join with one below.
func (t *tree) prune(ctx context.Context) error {
	for parent, names := range t.whiteouts {
		at, err := t.walk(ctx, parent)
		if _, replaced := errors.AsType[notDirectory](err); replaced {
			continue // and they went with it
		}
		if err == nil {
			err = t.pruneDir(ctx, at, names)
		}
		if err != nil {
			return fmt.Errorf("deletions in %q: %w", shorten(parent), err)
		}
	}
	return nil
}

func (t *tree) pruneDir(ctx context.Context, at *place, names []string) error {
	for _, name := range names {
		if e, ok := at.dir.Entries[name]; !ok || !isDeleted(e) {
			continue // something came in its place
		}
		f, err := t.lookupName(ctx, at, name)
		if err != nil {
			return err
		}
		if f != nil {
			f.close()
			continue
		}
		delete(at.dir.Entries, name)
	}
	return nil
}

// hideRoot is that of a directory.
func (t *tree) hideRoot(ctx context.Context) error {
	return t.eachInRoot(ctx, func(name string) error {
		_, err := t.mark(&place{dir: t.root}, name)
		return err
	})
}
