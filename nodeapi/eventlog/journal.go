package eventlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/nodeagent/nodeagent/internal/atomicfile"
	"github.com/sirupsen/logrus"
)

const (
	// maxJournal is how large the file grows before it is written anew with
	// what is still kept, of which the newest take half of it at most; in bytes.
	maxJournal = 4 << 20
	// maxEntry bounds what one event takes on disk, in bytes. A larger one is
	// kept in memory alone.
	maxEntry = 64 << 10
)

// journal is a file with an event in JSON on each line, the oldest first.
type journal struct {
	path string
	file *os.File
	size int64
}

// Keep makes the events outlive the program: those that an earlier one left at
// path are taken up, and each that is added is appended. It is called once, before
// anything else. Nothing is synced, and what cannot be written is left out there:
// path is for a folder that a reboot empties. The caller calls Close.
func (l *Log) Keep(path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	events, err := readJournal(path)
	if err != nil {
		// What cannot be read is of no more use.
		logrus.WithError(err).Warn("events of the last agent are lost")
	}
	l.events = events
	j := &journal{path: path}
	if err := j.rewrite(l.events); err != nil {
		return err
	}
	l.journal = j
	return nil
}

// Close ends what Keep began. The log goes on in memory.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.journal == nil {
		return nil
	}
	err := l.journal.file.Close()
	l.journal = nil
	return err
}

// readJournal reads the newest events of a journal. Lines that are none, such as
// the last one of a writer that was killed, are passed over.
func readJournal(path string) ([]Event, error) {
	data, err := atomicfile.Read(path, maxJournal+maxEntry)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var events []Event
	for line := range bytes.Lines(data) {
		var e Event
		if len(line) <= maxEntry && json.Unmarshal(line, &e) == nil && e.Type != "" && !e.At.IsZero() {
			events = append(events, e)
		}
	}
	return events[max(len(events)-capacity, 0):], nil
}

// rewrite makes a file of these events, and opens it to append more.
func (j *journal) rewrite(events []Event) error {
	var lines [][]byte
	size := 0
	for i := len(events) - 1; i >= 0; i-- {
		line := entry(events[i])
		if size += len(line); size > maxJournal/2 {
			break
		}
		lines = append(lines, line)
	}
	var data bytes.Buffer
	for i := len(lines) - 1; i >= 0; i-- {
		data.Write(lines[i])
	}
	if err := atomicfile.Write(j.path, data.Bytes(), 0o600); err != nil {
		return fmt.Errorf("keep events: %w", err)
	}
	file, err := os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return fmt.Errorf("keep events: %w", err)
	}
	if j.file != nil {
		_ = j.file.Close()
	}
	j.file, j.size = file, int64(data.Len())
	return nil
}

// entry is an event's line; empty where it is too long.
func entry(e Event) []byte {
	line, err := json.Marshal(e)
	if err != nil || len(line) >= maxEntry {
		return nil
	}
	return append(line, '\n')
}

// add appends an event. The log is locked meanwhile, so that the file has the
// order of the memory; the file is in memory too.
func (j *journal) add(e Event, kept []Event) {
	line := entry(e)
	if j.size+int64(len(line)) > maxJournal {
		if err := j.rewrite(kept); err != nil {
			logrus.WithError(err).Warn("an event is kept in memory alone")
		}
		return
	}
	n, err := j.file.Write(line)
	if err != nil && n > 0 {
		// No part of a line stays before the next one.
		err = errors.Join(err, j.file.Truncate(j.size))
		n = 0
	}
	j.size += int64(n)
	if err != nil {
		logrus.WithError(err).Warn("an event is kept in memory alone")
	}
}
