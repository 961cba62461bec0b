package recorder

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// Scan calls fn for each entry that contains text, the oldest first, until fn
// returns false. An empty text is in all. It reads what was noted before it was
// called, and passes over what is damaged.
func (r *Recorder) Scan(ctx context.Context, text string, fn func(Entry) bool) error {
	if r == nil {
		return nil
	}
	if err := r.flush(ctx); err != nil {
		return err
	}
	return scanDir(ctx, r.ring.dir, text, fn)
}

func scanDir(ctx context.Context, dir, text string, fn func(Entry) bool) error {
	numbers, err := segmentNumbers(dir)
	if err != nil {
		return fmt.Errorf("read recorder: %w", err)
	}
	for _, n := range numbers {
		err := scanSegment(ctx, segmentPath(dir, n), []byte(text), fn)
		if errors.Is(err, errStop) {
			return nil
		}
		// The oldest may just have been removed.
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read recorder: %w", err)
		}
	}
	return nil
}

func scanSegment(ctx context.Context, path string, text []byte, fn func(Entry) bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, maxEntry)
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue // no line of ours is so long; its rest is no line either
		case err != nil:
			return nil // what does not end in a newline is being written
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !bytes.Contains(line, text) {
			continue
		}
		if e, ok := decode(bytes.TrimSuffix(line, []byte("\n"))); ok && !fn(e) {
			return errStop
		}
	}
}

// Of gives the latest entries, at most limit, of the oldest first, that are of
// one of these IDs of pods or containers.
func (r *Recorder) Of(ctx context.Context, limit int, ids ...string) ([]Entry, error) {
	text := ""
	if len(ids) == 1 {
		text = ids[0]
	}
	var all []Entry
	err := r.Scan(ctx, text, func(e Entry) bool {
		if slices.Contains(ids, e.Container) && e.Container != "" || slices.Contains(ids, e.Pod) && e.Pod != "" {
			if all = append(all, e); len(all) >= 2*limit {
				all = append(all[:0:0], all[len(all)-limit:]...)
			}
		}
		return true
	})
	return all[max(0, len(all)-limit):], err
}
