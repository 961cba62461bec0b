// Package logfile writes container output in the CRI log format, the one
// kubelet reads: "<RFC3339Nano time> <stdout|stderr> <P|F> <text>\n", where P
// marks a piece of a line that goes on in the next record. A line is split
// only when it is longer than the limit, or when the output ended within it.
//
// Writing never holds a container up and never fails it: what cannot be
// written is counted and dropped, and nothing is ever synced.
package logfile

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// DefaultMaxLine is the longest line in bytes when none is given.
const DefaultMaxLine = 16384

// Writer is one container's log file. Its methods may be called from several
// goroutines. A nil Writer swallows everything.
type Writer struct {
	path string

	mu      sync.Mutex // guards the fields below, and orders the records
	file    *os.File
	dropped uint64
	failing bool
}

// Open opens path for appending, and creates it (0640) and its directory
// (0755) when they are missing. An empty path gives a nil Writer.
func Open(path string) (*Writer, error) {
	if path == "" {
		return nil, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	return &Writer{path: path, file: f}, nil
}

// Resume is Open for the log of a container that runs and must not be held up:
// when it cannot be opened the Writer swallows everything until Reopen, and the
// error comes with it. A record that the last writer was killed in ends there,
// so that the next one is not taken for a part of it.
func Resume(path string) (*Writer, error) {
	w, err := Open(path)
	if err != nil {
		return &Writer{path: path}, err
	}
	if w != nil && endsWithin(path) {
		w.Write([]byte("\n"))
	}
	return w, nil
}

// endsWithin tells whether a file ends within a line.
func endsWithin(path string) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
		return false
	}
	var last [1]byte
	n, err := unix.Pread(fd, last[:], st.Size-1)
	return err == nil && n == 1 && last[0] != '\n'
}

// openFile refuses symbolic links, and does not hang on a FIFO.
func openFile(path string) (*os.File, error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_APPEND | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK
	fd, err := unix.Open(path, flags, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", path, err)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open log %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Reopen opens the path anew and switches to it between two records. On error
// the present file stays in use.
func (w *Writer) Reopen() error {
	if w == nil {
		return nil
	}
	f, err := openFile(w.path)
	if err != nil {
		return err
	}
	w.mu.Lock()
	old := w.file
	w.file = f
	w.failing = false
	w.mu.Unlock()
	if old != nil {
		old.Close()
	}
	return nil
}

// Write appends whole records with one write(2). The container's output must
// flow whatever happens to the log, so there is no error to return.
func (w *Writer) Write(records []byte) {
	if w == nil || len(records) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return
	}
	if n, err := w.file.Write(records); err != nil {
		w.untear(records[:n])
		w.dropped++
		if !w.failing {
			w.failing = true
			logrus.WithError(err).WithField("log", w.path).Warn("container log cannot be written, output is dropped")
		}
		return
	}
	if w.failing {
		w.failing = false
		logrus.WithField("log", w.path).WithField("dropped", w.dropped).Warn("container log is written again")
	}
}

// untear takes the beginning of a record off the end of the file, which the next
// record would otherwise become a part of. written is what there was room for.
// The caller holds mu.
func (w *Writer) untear(written []byte) {
	torn := len(written) - (bytes.LastIndexByte(written, '\n') + 1)
	if torn == 0 {
		return
	}
	info, err := w.file.Stat()
	if err == nil && info.Mode().IsRegular() {
		err = w.file.Truncate(max(0, info.Size()-int64(torn)))
	}
	if err != nil {
		logrus.WithError(err).WithField("log", w.path).Warn("container log ends within a record")
	}
}

// Close closes the file; later writes go nowhere.
func (w *Writer) Close() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
}
