package blocked

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Thread is one that waits in the kernel for something that may never come.
type Thread struct {
	PID, TID int
	// State is that of proc_pid_stat(5), such as "D".
	State string
	// Syscall is what it called, such as "newfstatat"; Path what with, where
	// that can be told.
	Syscall, Path string
	// Where is the kernel function it sleeps in, Stack all of them, the
	// innermost first; empty where the kernel does not tell.
	Where string
	Stack []string
}

// String is one line, such as `newfstatat("/mnt/x") in request_wait_answer
// (thread 12, state D)`.
func (t Thread) String() string {
	name := t.Syscall
	if t.Path != "" {
		name += fmt.Sprintf("(%q)", t.Path)
	}
	if t.Where != "" && t.Where != "0" {
		name += " in " + t.Where
	}
	return fmt.Sprintf("%s (thread %d, state %s)", name, t.TID, t.State)
}

// Bounds of what is read.
const (
	maxThreads = 4096
	maxStack   = 12
	maxFile    = 16 << 10
)

// Threads finds the threads of a process, usually this one, that are in a
// call of the file system or cannot be interrupted.
func Threads(pid int) []Thread {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "task")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	memory, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "mem"))
	if err == nil {
		defer memory.Close()
	}
	var found []Thread
	for _, e := range entries[:min(len(entries), maxThreads)] {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if t, ok := readThread(filepath.Join(dir, e.Name()), memory); ok {
			t.PID, t.TID = pid, tid
			found = append(found, t)
		}
	}
	return found
}

// readThread reads one thread; ok is false for one that waits for nothing
// that matters here.
func readThread(dir string, memory io.ReaderAt) (t Thread, ok bool) {
	t.State = stateOf(read(filepath.Join(dir, "stat")))
	fields := strings.Fields(read(filepath.Join(dir, "syscall")))
	call, known := syscallOf(fields)
	if !known && t.State != "D" {
		return t, false
	}
	t.Syscall = call.name
	if t.Syscall == "" && len(fields) > 0 {
		t.Syscall = "system call " + fields[0]
	}
	if known && len(fields) > call.path+1 {
		t.Path = readPath(memory, fields[call.path+1])
	}
	t.Where = strings.TrimSpace(read(filepath.Join(dir, "wchan")))
	t.Stack = parseStack(read(filepath.Join(dir, "stack")))
	if (t.Where == "" || t.Where == "0") && len(t.Stack) > 0 {
		t.Where = t.Stack[0]
	}
	return t, true
}

// stateOf is the third field of stat, after the name in parentheses.
func stateOf(stat string) string {
	_, rest, ok := cutLast(stat, ") ")
	if !ok || rest == "" {
		return "?"
	}
	return rest[:1]
}

func cutLast(s, separator string) (before, after string, ok bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}

// call is a system call and which of its arguments is a path.
type call struct {
	name string
	path int
}

// pathCalls are those that Go's file functions, mounting and unmounting end
// in, on every architecture.
var pathCalls = map[int]call{
	unix.SYS_OPENAT: {"openat", 1}, unix.SYS_OPENAT2: {"openat2", 1}, unix.SYS_STATX: {"statx", 1},
	unix.SYS_FACCESSAT: {"faccessat", 1}, unix.SYS_FACCESSAT2: {"faccessat2", 1}, unix.SYS_READLINKAT: {"readlinkat", 1},
	unix.SYS_MKDIRAT: {"mkdirat", 1}, unix.SYS_UNLINKAT: {"unlinkat", 1}, unix.SYS_FCHOWNAT: {"fchownat", 1},
	unix.SYS_FCHMODAT: {"fchmodat", 1}, unix.SYS_MKNODAT: {"mknodat", 1}, unix.SYS_RENAMEAT: {"renameat", 1}, unix.SYS_RENAMEAT2: {"renameat2", 1},
	unix.SYS_MOUNT: {"mount", 1}, unix.SYS_UMOUNT2: {"umount2", 0}, unix.SYS_STATFS: {"statfs", 0},
	unix.SYS_OPEN_TREE: {"open_tree", 1}, unix.SYS_MOVE_MOUNT: {"move_mount", 3}, sysFstatat: {"newfstatat", 1},
}

// syscallOf reads the fields of /proc/PID/task/TID/syscall: the number and six
// arguments, or "running".
func syscallOf(fields []string) (call, bool) {
	if len(fields) == 0 {
		return call{}, false
	}
	number, err := strconv.Atoi(fields[0])
	if err != nil {
		return call{}, false
	}
	c, ok := pathCalls[number]
	return c, ok
}

// readPath reads the string that a thread's argument points to.
func readPath(memory io.ReaderAt, pointer string) string {
	address, err := strconv.ParseInt(strings.TrimPrefix(pointer, "0x"), 16, 64)
	if err != nil || address == 0 || memory == nil {
		return ""
	}
	var b [unix.PathMax]byte
	n, _ := memory.ReadAt(b[:], address)
	path, _, ok := bytes.Cut(b[:n], []byte{0})
	if !ok {
		return ""
	}
	return strings.ToValidUTF8(string(path), "?")
}

// parseStack takes the functions out of lines such as
// "[<0>] request_wait_answer+0x12f/0x210".
func parseStack(text string) []string {
	var functions []string
	for line := range strings.Lines(text) {
		_, name, ok := strings.Cut(strings.TrimSpace(line), "] ")
		if !ok || len(functions) == maxStack {
			continue
		}
		name, _, _ = strings.Cut(name, "+0x")
		functions = append(functions, name)
	}
	return functions
}

// read reads a small file of /proc; what cannot be read is empty.
func read(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, maxFile))
	return string(b)
}
