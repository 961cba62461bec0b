package crilog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
)

// Rotated is the n-th of the older files of a log, the latest first.
func Rotated(path string, n int) string { return fmt.Sprintf("%s.%d", path, n) }

// openTries is how often files are opened that are rotated meanwhile.
const openTries = 5

// errRotated are files that were rotated while they were opened.
var errRotated = errors.New("it is rotated too often to be read")

// openAll opens a log and its older files, as they were at one moment, the newest
// first. What is missing is left out.
func openAll(path string, older int) (files []*os.File, err error) {
	for range openTries {
		if files, err = openOnce(path, older); !errors.Is(err, errRotated) {
			return files, err
		}
		for _, f := range files {
			_ = f.Close()
		}
	}
	return nil, err
}

// openOnce opens them one after the other: a rotation meanwhile shows one of them
// again, under its next name.
func openOnce(path string, older int) (files []*os.File, err error) {
	var seen []os.FileInfo
	for n := 0; n <= older; n++ {
		name := path
		if n > 0 {
			name = Rotated(path, n)
		}
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return files, err
		}
		files = append(files, f)
		info, err := f.Stat()
		if err != nil {
			return files, err
		}
		if slices.ContainsFunc(seen, func(other os.FileInfo) bool { return os.SameFile(info, other) }) {
			return files, errRotated
		}
		seen = append(seen, info)
	}
	return files, nil
}

// seekTail puts files, the newest first, where the last n lines of all of them
// begin, and says in which one; -1 where there is none. A negative n means all.
func seekTail(files []*os.File, n int64) (first int, err error) {
	if n < 0 {
		return len(files) - 1, nil
	}
	for i, f := range files {
		offset, missing, err := tailOffset(f, n)
		if err == nil {
			_, err = f.Seek(offset, io.SeekStart)
		}
		if err != nil {
			return -1, err
		}
		if missing == 0 {
			return i, nil
		}
		n = missing
	}
	return len(files) - 1, nil
}

// next is the path of the file that was begun after the one that is read, which
// was rotated, and maybe more than once.
func (r *reader) next() string {
	next := r.path
	if r.file == nil {
		return next
	}
	open, err := r.file.Stat()
	for n := 1; err == nil && n <= r.options.Older; n++ {
		older, err := os.Stat(Rotated(r.path, n))
		if err != nil {
			continue
		}
		if os.SameFile(older, open) {
			break
		}
		next = Rotated(r.path, n)
	}
	return next
}
