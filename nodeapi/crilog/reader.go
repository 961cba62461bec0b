package crilog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Options says what Read gives.
type Options struct {
	// Tail is how many lines from the end; negative means all.
	Tail int64
	// Since and Until bound the time of entries; zero means no bound.
	Since, Until time.Time
	// Follow, when not nil, makes Read go on until the channel is closed
	// and all that was written by then is read.
	Follow <-chan struct{}
	// Older is how many of the files that Rotated names belong to the log.
	Older int
}

// Read gives the entries of the log at path to emit, oldest first, until the
// log ends, emit fails, or ctx is done. pause, when not nil, is called each
// time Read has given all there is for now. A log that does not exist yet is
// an empty one. A log that is rotated while it is read is read to its end and
// then the next one, so that nothing is left out or given twice.
func Read(ctx context.Context, path string, o Options, emit func(Entry) error, pause func() error) error {
	r := &reader{path: path, options: o, emit: emit, pause: pause}
	if r.pause == nil {
		r.pause = func() error { return nil }
	}
	defer r.close()
	if o.Follow == nil {
		return r.finish(r.begin(ctx))
	}
	return r.finish(r.follow(ctx))
}

// errUntil ends reading once entries are later than asked for.
var errUntil = errors.New("later than asked for")

// reader reads one log.
type reader struct {
	path    string
	options Options
	emit    func(Entry) error
	pause   func() error

	file *os.File
	buf  *bufio.Reader
	// partial is the begin of a line whose end is not written yet; skip
	// says that it was too long and the rest is to be skipped.
	partial []byte
	skip    bool
}

// finish turns the end asked for into success.
func (r *reader) finish(err error) error {
	if errors.Is(err, errUntil) {
		err = nil
	}
	if err == nil {
		err = r.pause()
	}
	return err
}

// follow reads until the container's output has ended.
func (r *reader) follow(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("follow log: %w", err)
	}
	defer watcher.Close()
	// The folder is watched, so that a rotation is seen too.
	if err := watcher.Add(filepath.Dir(r.path)); err != nil {
		return fmt.Errorf("follow log: %w", err)
	}
	if err := r.begin(ctx); err != nil {
		return err
	}
	var expired <-chan time.Time
	if !r.options.Until.IsZero() {
		timer := time.NewTimer(time.Until(r.options.Until))
		defer timer.Stop()
		expired = timer.C
	}
	for {
		if err := r.advance(ctx); err != nil {
			return err
		}
		if err := r.pause(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-expired:
			return nil
		case <-r.options.Follow:
			return r.advance(ctx)
		case _, ok := <-watcher.Events:
			if !ok {
				return errors.New("follow log: the watch ended")
			}
		case err := <-watcher.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("follow log: %w", err)
			}
		}
	}
}

// advance reads what there is, and goes over to a new file where the log was
// rotated.
func (r *reader) advance(ctx context.Context) error {
	for {
		if err := r.drain(ctx); err != nil {
			return err
		}
		rotated, err := r.rotated()
		if err != nil || !rotated {
			return err
		}
		// What was written between the drain and the rotation.
		if err := r.drain(ctx); err != nil {
			return err
		}
		next := r.next()
		r.close()
		f, err := os.Open(next)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		r.take(f)
	}
}

// rotated says whether the path names another file than the open one.
func (r *reader) rotated() (bool, error) {
	now, err := os.Stat(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || r.file == nil {
		return err == nil, err
	}
	open, err := r.file.Stat()
	return err == nil && !os.SameFile(now, open), err
}

// begin reads what there is of the log's files, the oldest first, from the first
// line asked for on. The newest stays open; a missing one leaves the reader
// without a file.
func (r *reader) begin(ctx context.Context) error {
	files, err := openAll(r.path, r.options.Older)
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	first, err := seekTail(files, r.options.Tail)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	for i := first; i >= 0; i-- {
		r.close()
		r.take(files[i])
		files = files[:i]
		if err := r.drain(ctx); err != nil {
			return err
		}
	}
	return nil
}

// take makes a file the one that is read.
func (r *reader) take(f *os.File) {
	r.file, r.partial, r.skip = f, nil, false
	r.buf = bufio.NewReaderSize(f, 64<<10)
}

func (r *reader) close() {
	if r.file != nil {
		_ = r.file.Close()
		r.file = nil
	}
}

// drain gives all whole lines there are.
func (r *reader) drain(ctx context.Context) error {
	if r.file == nil {
		return nil
	}
	for {
		chunk, err := r.buf.ReadSlice('\n')
		if len(r.partial)+len(chunk) > MaxLine {
			r.partial, r.skip = nil, true
		}
		if !r.skip {
			r.partial = append(r.partial, chunk...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read log: %w", err)
		}
		line, skip := bytes.TrimSuffix(r.partial, []byte("\n")), r.skip
		r.partial, r.skip = r.partial[:0], false
		if skip {
			continue
		}
		if err := r.give(line); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// give gives one line, where it is an entry within the bounds of time.
func (r *reader) give(line []byte) error {
	e, err := Parse(line)
	switch {
	case err != nil:
		return nil
	case !r.options.Until.IsZero() && e.Time.After(r.options.Until):
		return errUntil
	case !r.options.Since.IsZero() && e.Time.Before(r.options.Since):
		return nil
	}
	return r.emit(e)
}
