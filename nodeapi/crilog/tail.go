package crilog

import (
	"bytes"
	"io"
)

// tailBlock is how much is read at once from the end, in bytes.
const tailBlock = 64 << 10

// maxHeader is as much of a line as Parse needs to tell its kind.
const maxHeader = 256

// tailOffset returns where the last n lines of a log begin, and how many of them
// it lacks. Parts of one line count as one, as far as they stand together.
func tailOffset(f io.ReadSeeker, n int64) (offset, missing int64, err error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return end, 0, err
	}
	t := tailer{want: n, lineEnd: end, unfinished: true}
	block := make([]byte, tailBlock)
	// carry is the begin of the block after this one, up to its first newline.
	var carry []byte
	for pos := end; pos > 0; {
		size := min(pos, tailBlock)
		pos -= size
		if _, err := f.Seek(pos, io.SeekStart); err != nil {
			return 0, 0, err
		}
		if _, err := io.ReadFull(f, block[:size]); err != nil {
			return 0, 0, err
		}
		data := append(append([]byte(nil), block[:size]...), carry...)
		last := len(data)
		for {
			i := bytes.LastIndexByte(data[:last], '\n')
			if i < 0 {
				break
			}
			if t.line(pos+int64(i)+1, data[i+1:last]) {
				return t.lineEnd, 0, nil
			}
			last = i
		}
		carry = append([]byte(nil), data[:min(last, maxHeader)]...)
	}
	if t.line(0, carry) {
		return t.lineEnd, 0, nil
	}
	return 0, t.want, nil
}

// tailer counts lines from the end.
type tailer struct {
	want int64
	// lineEnd is where the line seen last begins, which is where the one
	// before it ends.
	lineEnd int64
	// unfinished is true for what stands after the last newline.
	unfinished bool
}

// line is told of each line, from the last to the first, with its offset and
// at least its begin. It says whether lineEnd is where to begin reading.
func (t *tailer) line(offset int64, data []byte) (found bool) {
	counts := len(data) > 0 && !t.unfinished
	t.unfinished = false
	if counts {
		e, err := Parse(data)
		if err == nil && !e.Partial {
			if t.want == 0 {
				return true
			}
			t.want--
		}
	}
	t.lineEnd = offset
	return false
}
