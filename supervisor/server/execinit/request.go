package execinit

import (
	"bytes"
	"encoding/binary"
	"os"
	"path"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Capabilities are sets of bits, by the kernel's numbers.
type Capabilities struct {
	Bounding, Effective, Permitted, Inheritable, Ambient uint64
}

// Limit is a resource limit; Kind is one of setrlimit(2).
type Limit struct {
	Kind       int
	Soft, Hard uint64
}

// Filter is a seccomp filter: a BPF program as the kernel takes it, and the
// flags to load it with.
type Filter struct {
	Flags        uint64
	Instructions []unix.SockFilter
}

// Request is what to run, and as whom.
type Request struct {
	// Args are the program's, the first its name; Env its whole environment,
	// each NAME=VALUE once.
	Args, Env []string
	// Dir is the working directory, absolute, in the container.
	Dir string

	UID, GID     int
	Groups       []int
	Capabilities Capabilities
	// NoNewPrivileges is prctl(PR_SET_NO_NEW_PRIVS).
	NoNewPrivileges bool
	Limits          []Limit
	// Filters are loaded in their order.
	Filters []Filter
	// Umask is the file mode creation mask; nil leaves the supervisor's.
	Umask *uint32
	// OOMScoreAdj is /proc/PID/oom_score_adj; nil leaves the supervisor's.
	OOMScoreAdj *int
	// Keyring names the session keyring to join; empty leaves the
	// supervisor's.
	Keyring string

	// Tasks are files named so of the cgroups of v1 to join.
	Tasks []string
	// Unified is a folder of cgroup v2 for the process to be born in; nil for
	// none. It stays the caller's.
	Unified *os.File
}

const (
	// answerPage is where the first process tells the number of the second.
	answerPage = 4096
	// maxFilter is the kernel's BPF_MAXINSNS.
	maxFilter = 4096
)

// Flags of struct head in C.
const (
	flagNoNewPrivileges = 1 << iota
	flagSearch
	flagKeyring
	flagUnified
)

// head is struct head in C.
type head struct {
	Size, Bounding, Effective, Permitted, Inheritable, Ambient      uint64
	UID, GID, Umask                                                 int32
	Flags, Groups, Limits, Filters, Cgroups, Programs, Args, Env, _ uint32
}

// file writes the request to a file in memory.
func (r *Request) file() (*os.File, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteAt(r.encode(), answerPage); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// check finds what cannot be encoded, or would mean something else.
func (r *Request) check() error {
	if len(r.Args) == 0 || r.Args[0] == "" {
		return &Error{Step: StepRequest, Err: unix.EINVAL}
	}
	for _, list := range [][]string{r.Args, r.Env, r.Tasks, {r.Dir, r.Keyring}} {
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return &Error{Step: StepRequest, Err: unix.EINVAL}
			}
		}
	}
	for _, f := range r.Filters {
		if len(f.Instructions) == 0 || len(f.Instructions) > maxFilter {
			return &Error{Step: StepRequest, Err: unix.EINVAL}
		}
	}
	return nil
}

// encode gives the request the form that map in C takes apart.
func (r *Request) encode() []byte {
	programs, flags := r.programs()
	h := head{
		Bounding: r.Capabilities.Bounding, Effective: r.Capabilities.Effective, Permitted: r.Capabilities.Permitted,
		Inheritable: r.Capabilities.Inheritable, Ambient: r.Capabilities.Ambient,
		UID: int32(r.UID), GID: int32(r.GID), Umask: -1, Flags: flags,
		Groups: uint32(len(r.Groups)), Limits: uint32(len(r.Limits)), Filters: uint32(len(r.Filters)),
		Cgroups: uint32(len(r.Tasks)), Programs: uint32(len(programs)), Args: uint32(len(r.Args)), Env: uint32(len(r.Env)),
	}
	if r.Umask != nil {
		h.Umask = int32(*r.Umask)
	}
	var rest bytes.Buffer
	put := func(values ...uint64) {
		for _, v := range values {
			rest.Write(binary.NativeEndian.AppendUint64(nil, v))
		}
	}
	for _, l := range r.Limits {
		put(uint64(l.Kind), l.Soft, l.Hard)
	}
	for _, f := range r.Filters {
		put(f.Flags, uint64(len(f.Instructions)))
	}
	for _, f := range r.Filters {
		_ = binary.Write(&rest, binary.NativeEndian, f.Instructions) // a buffer takes all of it
	}
	for _, g := range r.Groups {
		rest.Write(binary.NativeEndian.AppendUint32(nil, uint32(g)))
	}
	oomScore := ""
	if r.OOMScoreAdj != nil {
		oomScore = strconv.Itoa(*r.OOMScoreAdj)
	}
	for _, list := range [][]string{{oomScore, r.Keyring, r.Dir}, r.Tasks, programs, r.Args, r.Env} {
		for _, s := range list {
			rest.WriteString(s)
			rest.WriteByte(0)
		}
	}
	h.Size = uint64(unsafe.Sizeof(h)) + uint64(rest.Len())
	out := bytes.NewBuffer(make([]byte, 0, h.Size))
	_ = binary.Write(out, binary.NativeEndian, h)
	out.Write(rest.Bytes())
	return out.Bytes()
}

// programs are the files that the first argument may mean, and the flags.
func (r *Request) programs() ([]string, uint32) {
	var flags uint32
	if r.NoNewPrivileges {
		flags |= flagNoNewPrivileges
	}
	if r.Keyring != "" {
		flags |= flagKeyring
	}
	if r.Unified != nil {
		flags |= flagUnified
	}
	if strings.Contains(r.Args[0], "/") {
		return r.Args[:1], flags
	}
	var files []string
	for _, dir := range strings.Split(r.path(), ":") {
		// One that is relative would mean the working directory, which a
		// name without a slash never does here.
		if path.IsAbs(dir) {
			files = append(files, path.Join(dir, r.Args[0]))
		}
	}
	return files, flags | flagSearch
}

// path is the value of PATH.
func (r *Request) path() string {
	for _, entry := range r.Env {
		if value, ok := strings.CutPrefix(entry, "PATH="); ok {
			return value
		}
	}
	return ""
}
