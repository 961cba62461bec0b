package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// archive writes a cpio archive of the format newc, which the kernel unpacks as its first file system (kernel,
// Documentation/driver-api/early-userspace/buffer-format.rst). The first error stays and is returned by close.
type archive struct {
	w     *bufio.Writer
	inode int
	dirs  map[string]bool
	err   error
}

func newArchive(w io.Writer) *archive {
	return &archive{w: bufio.NewWriter(w), dirs: map[string]bool{".": true}}
}

// addFile adds the file at source under the name.
func (a *archive) addFile(name, source string) {
	if a.err != nil {
		return
	}
	var content []byte
	if content, a.err = os.ReadFile(source); a.err == nil {
		a.add(name, content, 0o755)
	}
}

// add adds a file and the folders above it.
func (a *archive) add(name string, content []byte, mode int) {
	name = strings.TrimPrefix(path.Clean(name), "/")
	a.addDir(path.Dir(name))
	a.entry(name, content, 0o100000|mode)
}

func (a *archive) addDir(name string) {
	if a.dirs[name] {
		return
	}
	a.addDir(path.Dir(name))
	a.dirs[name] = true
	a.entry(name, nil, 0o040755)
}

func (a *archive) entry(name string, content []byte, mode int) {
	if a.err != nil {
		return
	}
	a.inode++
	header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	a.write([]byte(header+name+"\x00"), len(header)+len(name)+1)
	a.write(content, len(content))
}

// write writes data and fills up to a multiple of four.
func (a *archive) write(data []byte, size int) {
	if a.err == nil {
		_, a.err = a.w.Write(data)
	}
	if a.err == nil {
		_, a.err = a.w.Write(make([]byte, (4-size%4)%4))
	}
}

func (a *archive) close() error {
	a.entry("TRAILER!!!", nil, 0)
	if a.err != nil {
		return a.err
	}
	return a.w.Flush()
}
