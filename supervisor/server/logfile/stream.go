package logfile

import (
	"bytes"
	"sync"
	"time"
)

// Stream turns one output stream of a container into log records. It is used
// by one goroutine.
type Stream struct {
	w       *Writer
	name    string
	maxLine int
	// pending is the beginning of a line that has not ended yet.
	pending []byte
}

// batches holds buffers that records are put together in.
var batches = sync.Pool{New: func() any {
	b := make([]byte, 0, 48<<10)
	return &b
}}

// largestKept is the size in bytes above which a batch buffer is not kept.
const largestKept = 256 << 10

// NewStream returns the stream called name ("stdout" or "stderr") of w. A line
// longer than maxLine bytes is split; zero means DefaultMaxLine.
func NewStream(w *Writer, name string, maxLine int) *Stream {
	if maxLine <= 0 {
		maxLine = DefaultMaxLine
	}
	return &Stream{w: w, name: name, maxLine: maxLine}
}

// Feed writes the lines that data completes and keeps the rest. All records
// of one call carry the time at.
func (s *Stream) Feed(data []byte, at time.Time) {
	if s.w == nil {
		return
	}
	bp := batches.Get().(*[]byte)
	batch := s.appendRecords((*bp)[:0], data, at)
	s.w.Write(batch)
	if cap(batch) <= largestKept {
		*bp = batch
		batches.Put(bp)
	}
}

// Flush writes the unfinished line, if there is one, as a partial record: the
// output has ended.
func (s *Stream) Flush(at time.Time) {
	if s.w == nil || len(s.pending) == 0 {
		return
	}
	s.w.Write(s.appendRecord(nil, s.stamp(at), 'P', s.pending, nil))
	s.pending = nil
}

// appendRecords appends the records that data completes to batch.
func (s *Stream) appendRecords(batch, data []byte, at time.Time) []byte {
	stamp := s.stamp(at)
	for len(data) > 0 {
		end := bytes.IndexByte(data, '\n')
		line := data
		if end >= 0 {
			line = data[:end]
		}
		for len(s.pending)+len(line) > s.maxLine {
			n := s.maxLine - len(s.pending)
			batch = s.appendRecord(batch, stamp, 'P', s.pending, line[:n])
			s.pending = s.pending[:0]
			line = line[n:]
		}
		if end < 0 {
			s.keep(line)
			return batch
		}
		batch = s.appendRecord(batch, stamp, 'F', s.pending, line)
		s.pending = nil
		data = data[end+1:]
	}
	return batch
}

// keep remembers the beginning of a line. A finished line frees the memory, so
// that an idle container costs none.
func (s *Stream) keep(line []byte) {
	if len(line) == 0 && len(s.pending) == 0 {
		s.pending = nil
		return
	}
	s.pending = append(s.pending, line...)
}

// stamp is the part of a record up to its tag.
func (s *Stream) stamp(at time.Time) []byte {
	b := make([]byte, 0, len(time.RFC3339Nano)+len(s.name)+2)
	b = at.AppendFormat(b, time.RFC3339Nano)
	b = append(b, ' ')
	b = append(b, s.name...)
	return append(b, ' ')
}

func (s *Stream) appendRecord(batch, stamp []byte, tag byte, head, tail []byte) []byte {
	batch = append(batch, stamp...)
	batch = append(batch, tag, ' ')
	batch = append(batch, head...)
	batch = append(batch, tail...)
	return append(batch, '\n')
}
