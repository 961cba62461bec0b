// Package crilog reads logs in CRI's format, one entry a line:
//
//	2016-10-06T00:17:09.669794202Z stdout P the first part of a long line
//	2016-10-06T00:17:09.669794203Z stdout F its end
//
// A writer may be killed in the middle of a line, so a line that does not
// parse is skipped, and reading goes on with the next.
package crilog

import (
	"bytes"
	"errors"
	"time"
)

// MaxLine is the longest line that is read, in bytes. What is longer was not
// written by a container runtime, and is skipped.
const MaxLine = 1 << 20

// Entry is one line, or a part of one, that a container wrote.
type Entry struct {
	Time   time.Time
	Stderr bool
	// Partial says that the line goes on in the next entry of its stream.
	Partial bool
	// Data has no newline at its end.
	Data []byte
}

// errFormat is the error of every line that is not an entry.
var errFormat = errors.New("not a log entry")

// Parse reads one line, without its newline. Data shares the line's memory.
func Parse(line []byte) (Entry, error) {
	var e Entry
	stamp, rest, ok := bytes.Cut(line, []byte(" "))
	if !ok || len(stamp) > 64 {
		return e, errFormat
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return e, errFormat
	}
	stream, rest, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return e, errFormat
	}
	switch string(stream) {
	case "stdout":
	case "stderr":
		e.Stderr = true
	default:
		return e, errFormat
	}
	// Tags are separated by colons; the first tells whether the line is whole.
	tags, data, _ := bytes.Cut(rest, []byte(" "))
	first, _, _ := bytes.Cut(tags, []byte(":"))
	switch string(first) {
	case "F":
	case "P":
		e.Partial = true
	default:
		return e, errFormat
	}
	e.Time, e.Data = at, data
	return e, nil
}
