// Package doctor looks at the host and says what is missing or wrong for
// pods, with the command that mends it. Nothing is changed unless a finding's
// Fix is called.
package doctor

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/nodeagent/nodeagent/supervisor"
)

// Level says how bad a Finding is.
type Level int

// The levels. Only from Warning on something should be done.
const (
	OK Level = iota
	Note
	Warning
	Problem
)

// Finding is what one check says.
type Finding struct {
	Level Level
	// Check is a word or two, Text a sentence, Remedy a command.
	Check, Text, Remedy string
	// Fix mends it; nil where a person must.
	Fix func(ctx context.Context) error
}

// Host is what is looked at.
type Host struct {
	// Root is where /proc, /sys, /dev and /etc are; "/" but in tests.
	Root string
	// AgentRoot, AgentState and Socket are the agent's folders and socket.
	AgentRoot, AgentState, Socket string
	// ConfDir is CNI's configurations, BinDirs its programs.
	ConfDir string
	// CgroupDriver is the agent's.
	CgroupDriver string
	// Network tells of CNI, Supervisor of the supervisor, Orphans of what
	// belongs to nothing; each may be nil.
	Network    Network
	Supervisor Supervisor
	Orphans    Orphans
	// Logs gives the folders that containers' logs are in; may be nil.
	Logs func() []string
	// Statfs is unix.Statfs, but in tests.
	Statfs func(path string, buf *unix.Statfs_t) error
	// LookPath finds a program, but in tests exec.LookPath.
	LookPath func(name string) (string, error)
}

// Network is what is asked of the network; package network has it.
type Network interface {
	Status(ctx context.Context) error
	Info() network.Info
}

// Supervisor is what is asked of the supervisor; package supervisor has it.
type Supervisor interface {
	Info(ctx context.Context) (supervisor.Info, error)
}

// Orphans finds and removes what belongs to nothing; package sandbox has it.
type Orphans interface {
	Orphans(ctx context.Context) ([]sandbox.Orphan, error)
	RemoveOrphan(ctx context.Context, o sandbox.Orphan) error
}

// checkTimeout bounds one check, so that one that hangs does not hide the rest.
const checkTimeout = 10 * time.Second

// check is one thing that is looked at.
type check struct {
	name string
	run  func(ctx context.Context, r *report)
}

// report gathers the findings of one check.
type report struct {
	name     string
	findings []Finding
}

func (r *report) add(level Level, remedy, format string, args ...any) *Finding {
	r.findings = append(r.findings, Finding{Level: level, Check: r.name, Text: fmt.Sprintf(format, args...), Remedy: remedy})
	return &r.findings[len(r.findings)-1]
}

func (r *report) ok(format string, args ...any) { r.add(OK, "", format, args...) }

// Examine runs all checks, in an order in which a person would.
func (h Host) Examine(ctx context.Context) []Finding {
	var all []Finding
	for _, c := range h.checks() {
		all = append(all, h.run(ctx, c)...)
	}
	return all
}

func (h Host) checks() []check {
	return []check{
		{"kernel", h.kernel}, {"kernel features", h.features}, {"cgroups", h.cgroups}, {"supervisor", h.supervisor},
		{"network", h.network}, {"ip forwarding", h.forwarding}, {"bridged traffic", h.bridged},
		{"disk", h.disk}, {"state folder", h.stateFolder}, {"socket", h.socket},
		{"limits", h.limits}, {"security modules", h.security}, {"swap", h.swap}, {"clock", h.clock},
		{"checkpoints", h.criu}, {"leftovers", h.leftovers},
	}
}

// run runs one check; one that does not answer in time is given up, and said
// so. Its goroutine ends with what it hangs in.
func (h Host) run(ctx context.Context, c check) []Finding {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	done := make(chan []Finding, 1)
	go func() {
		r := &report{name: c.name}
		c.run(ctx, r)
		done <- r.findings
	}()
	select {
	case findings := <-done:
		return findings
	case <-ctx.Done():
		return []Finding{{Level: Problem, Check: c.name, Text: "the check did not end: " + ctx.Err().Error(), Remedy: "nodectl ops"}}
	}
}

// path is a file of the host.
func (h Host) path(name string) string { return filepath.Join(h.Root, name) }

// maxRead bounds what is read of one file.
const maxRead = 1 << 20

// read gives a file's text without blanks around it.
func (h Host) read(name string) (string, error) {
	f, err := os.Open(h.path(name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(&limited{f, maxRead}); err != nil {
		return "", err
	}
	return strings.TrimSpace(b.String()), nil
}

// limited is an io.LimitedReader that reads files of /proc whole.
type limited struct {
	f    fs.File
	left int
}

// Read reads at most what is left.
func (l *limited) Read(p []byte) (int, error) {
	if len(p) > l.left {
		p = p[:l.left]
	}
	if len(p) == 0 {
		return 0, fmt.Errorf("longer than %d bytes", maxRead)
	}
	n, err := l.f.Read(p)
	l.left -= n
	return n, err
}

// number reads a file that holds a number; ok is false where there is none.
func (h Host) number(name string) (n int64, ok bool) {
	text, err := h.read(name)
	if err != nil {
		return 0, false
	}
	n, err = strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

// exists says whether there is such a file.
func (h Host) exists(name string) bool {
	_, err := os.Stat(h.path(name))
	return err == nil
}

// write sets a file of /proc or /sys.
func (h Host) write(name, value string) func(context.Context) error {
	return func(context.Context) error { return os.WriteFile(h.path(name), []byte(value), 0o644) }
}
