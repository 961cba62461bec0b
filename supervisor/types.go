// Package supervisor is the agent's side of the node supervisor: the types of
// the protocol and a client for it. The supervisor itself, the one program
// that links libcontainer, lives in supervisor/server; this package never
// imports it.
//
// Errors returned by the client are of the kinds of containerd/errdefs:
// ErrNotFound for a container or exec the supervisor does not know,
// ErrAlreadyExists for an ID in use, ErrFailedPrecondition for a container in
// the wrong state, ErrInvalidArgument for a specification libcontainer
// refuses, ErrUnavailable when no supervisor answers.
package supervisor

import (
	"os"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Launch says where the node's supervisor is found, and how one is started
// when none answers.
type Launch struct {
	// Socket is the path of the supervisor's Unix socket, mode 0600.
	Socket string
	// Binary is the path of the nodesupervisor program.
	Binary string
	// State is the supervisor's own state directory, on tmpfs.
	State string
	// CgroupParent is the group below which the supervisor's own cgroup
	// "supervisor" is made, in every hierarchy, such as "/nodeagent". Below a
	// slice ("/nodeagent.slice") systemd makes a scope of it.
	CgroupParent string
	// LogFile receives the supervisor's own log; empty means none.
	LogFile string
	// LogLevel is a logrus level name; empty means info.
	LogLevel string
	// Path is the supervisor's PATH, where it finds criu; empty means the
	// usual folders, whatever the agent's own is.
	Path string
}

// Info describes a running supervisor.
type Info struct {
	// Version is the supervisor's build version.
	Version string
	// PID is its process ID in the host's PID namespace.
	PID int
	// StartedAt is when it came up.
	StartedAt time.Time
	// RuncVersion is the version of the libcontainer linked in.
	RuncVersion string
	// Features lists what libcontainer offers here: "seccomp", "apparmor",
	// "selinux", "criu", "recursive-read-only", "idmap".
	Features []string
}

// Streams are descriptors handed to the supervisor with a request. A nil file
// means that the stream is not wanted. The supervisor gets duplicates: the
// caller keeps its own files and closes them when it likes.
type Streams struct {
	// Stdin is read from by the container's side.
	Stdin *os.File
	// Stdout and Stderr are written to by the container's side.
	Stdout, Stderr *os.File
	// Wait slows an attached container down to this client, as a pipe would,
	// for ever. Without it a client that is far behind is waited for as long
	// as it goes on taking something, and cut off once it does not.
	Wait bool
}

// Container is everything the supervisor must know to run a container.
type Container struct {
	// ID is unique among the node's containers: 64 hexadecimal digits.
	ID string
	// Spec is the OCI runtime specification. Root.Path is a mounted root
	// filesystem, namespaces of the pod are joined by path,
	// Linux.CgroupsPath is the container's cgroup ("/parent/ID"), and
	// Process.Terminal asks for a terminal.
	Spec *specs.Spec
	// LogPath is the CRI log file, appended to; empty means no log.
	LogPath string
	// MaxLogLine is the longest line in bytes before it is split into
	// partial ones; zero means 16384.
	MaxLogLine int
	// Stdin keeps the container's standard input open for attach;
	// StdinOnce closes it when the first attached client goes.
	Stdin, StdinOnce bool
	// SystemdCgroup selects libcontainer's systemd cgroup driver.
	SystemdCgroup bool
	// Attach is attached before the first instruction runs, so that no
	// output is missed. Its zero value attaches nothing.
	Attach Streams
	// Restore is a folder that Checkpoint wrote to: the processes in it are
	// restored in place of Spec.Process being run. Empty runs it.
	Restore string
}

// Exec is a further process in a running container.
type Exec struct {
	// ContainerID names the container, ExecID the process within it.
	ContainerID, ExecID string
	// Process is the OCI process: arguments, environment, user, terminal.
	Process *specs.Process
	// Streams are given to the process as they are, without a copy in
	// between. Ignored with a terminal.
	Streams Streams
	// ConsoleSocket receives the terminal's master (SCM_RIGHTS, as
	// libcontainer sends it) when Process.Terminal is set: whoever asked
	// for the terminal owns its master, copies and resizes.
	ConsoleSocket *os.File
}

// Exit is how a process ended.
type Exit struct {
	// Code is the exit code; 128+n after signal n.
	Code int
	// Signal is the signal that killed it, zero if none did.
	Signal syscall.Signal
	// At is when the supervisor learnt of it.
	At time.Time
	// OOMKilled says that the kernel's OOM killer killed a process of the
	// container's cgroup.
	OOMKilled bool
	// Reason is "" or "SupervisorLost", when the code could not be known.
	Reason string
}

// Status is a container's state in the supervisor.
type Status string

// The states of a container in the supervisor. There is no created state: a
// container is started at once or not at all.
const (
	StatusRunning Status = "running"
	StatusPaused  Status = "paused"
	StatusStopped Status = "stopped"
)

// State is what the supervisor holds of a container.
type State struct {
	ID     string
	Status Status
	// PID is the container's init in the host's PID namespace; zero once
	// it ended.
	PID       int
	StartedAt time.Time
	// Exit is set once the container stopped.
	Exit *Exit
}

// PodInit is the first process of a PID namespace that a pod's containers
// share (NamespaceMode_POD). It does nothing but reap.
type PodInit struct {
	// ID is the pod's ID.
	ID string
	// NamespacePaths are joined in this order before the PID namespace is
	// made: those that the pod has of its own. nil joins none.
	NamespacePaths []string
	// CgroupPath is the cgroup it is put into; empty leaves it in the
	// supervisor's.
	CgroupPath string
}

// EventType is the kind of an Event.
type EventType string

// The kinds of events.
const (
	// EventExit tells that a container's init ended and its output is drained.
	EventExit EventType = "exit"
	// EventOOM tells that the OOM killer killed in a container, once or more
	// often since the last one. It comes before the container's EventExit.
	EventOOM EventType = "oom"
)

// Event is something that happened to a container.
type Event struct {
	Type EventType
	ID   string
	// Exit is set on EventExit.
	Exit *Exit
	// Kills is how many processes an EventOOM tells of, and At when that was
	// seen; zero when it is not known.
	Kills uint64
	At    time.Time
}
