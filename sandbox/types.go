// Package sandbox runs pods and containers: it joins namespaces, cgroups,
// network, snapshots and the supervisor into sequences of named steps, each
// with its undo, keeps a record of all of them, and finds everything again
// after the agent was killed.
//
// A glossary. A sandbox, or pod, is a set of pinned namespaces, a cgroup and
// a record; no process belongs to it unless its containers share a PID
// namespace. A container belongs to one sandbox for its whole life. An
// operation is a piece of work owned by a key; a caller that repeats it while
// it runs joins it and gets its result.
//
// Errors are of the kinds of containerd/errdefs: ErrNotFound for an unknown
// ID, ErrAlreadyExists for a name in use, ErrInvalidArgument for a
// configuration that cannot be right, ErrFailedPrecondition for a call that
// the state forbids, and context.DeadlineExceeded while an operation goes on
// in the background.
package sandbox

import (
	"context"
	"io"
	"time"

	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/sandbox/spec"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Owner says for whom a pod was made. CRI lists only its own.
type Owner string

// The owners.
const (
	OwnerCRI     Owner = "cri"
	OwnerNodectl Owner = "nodectl"
)

// PodState is the state of a pod.
type PodState string

// The states of a pod. A pod that is being made is not listed at all.
//
//	ready ──stop──▶ stopping ──▶ notready ──remove──▶ (gone)
//	  ▲                              │
//	  └── stopping ◀──── revive ─────┘   (nodectl's only)
const (
	PodReady    PodState = "ready"
	PodStopping PodState = "stopping"
	PodNotReady PodState = "notready"
)

// ContainerState is the state of a container.
type ContainerState string

// The states of a container.
//
//	created ──start──▶ running ◀──▶ paused
//	   │                  │
//	   └──failed start──▶ exited ──remove──▶ (gone)
const (
	ContainerCreated ContainerState = "created"
	ContainerRunning ContainerState = "running"
	ContainerPaused  ContainerState = "paused"
	ContainerExited  ContainerState = "exited"
)

// Pod is what is known of a pod at one moment. It is a copy: Config must not
// be changed by who gets it.
type Pod struct {
	// ID is 64 hexadecimal digits.
	ID    string
	Owner Owner
	State PodState
	// Config is the configuration as it came.
	Config *runtime.PodSandboxConfig
	// Handler is the runtime handler asked for; empty is the default one.
	Handler   string
	CreatedAt time.Time
	// Network is nil for a pod on the host's network, and once stopped.
	Network *network.Result
	// NetNS is the path of the pinned network namespace; empty on the host's.
	NetNS string
	// CgroupPath is the pod's cgroup, relative to each hierarchy's root.
	CgroupPath string
	// PID is the pod's init where its containers share a PID namespace;
	// zero otherwise.
	PID int
}

// Container is what is known of a container at one moment. It is a copy:
// Config must not be changed by who gets it.
type Container struct {
	// ID is 64 hexadecimal digits.
	ID    string
	PodID string
	Owner Owner
	State ContainerState
	// Config is the configuration as it came, with the resources that now hold.
	Config *runtime.ContainerConfig
	// ImageID is the image's configuration digest ("sha256:…"), ImageRef
	// what the image was asked for by.
	ImageID, ImageRef string
	CreatedAt         time.Time
	// StartedAt and FinishedAt are zero until it happened.
	StartedAt, FinishedAt time.Time
	// PID is the init process in the host's PID namespace; zero unless running.
	PID int
	// ExitCode, Reason and Message tell how it ended: Reason is
	// "Completed", "Error", "OOMKilled", "StartError" or "SupervisorLost".
	ExitCode int
	Reason   string
	Message  string
	// LogPath is absolute; empty without a log.
	LogPath string
	// User is what the container's first process runs as.
	User *runtime.ContainerUser
	// Mounts are those of the configuration, with sources resolved.
	Mounts []*runtime.Mount
	// StopSignal is the signal that stops it, such as "SIGTERM".
	StopSignal string
	// Rootfs is where the root filesystem is mounted on the host while it
	// exists; SnapshotKey names its snapshot.
	Rootfs, SnapshotKey string
	// Folder is the folder of the host that is its root filesystem in place
	// of an image's; then it has neither image nor snapshot. Nothing but the
	// container changes what is in it, and nobody removes it.
	Folder string `json:",omitempty"`
	// Args is the whole command that runs, image's and configuration's
	// together; Env and WorkingDir likewise.
	Args       []string
	Env        []string
	WorkingDir string
	// CgroupPath is relative to each hierarchy's root.
	CgroupPath string
}

// RunPodRequest asks for a pod.
type RunPodRequest struct {
	Config  *runtime.PodSandboxConfig
	Handler string
	Owner   Owner
	// ShmSize is that of /dev/shm in bytes; zero is 64 MiB.
	ShmSize int64
	// Networks are the people's networks that a person's pod is on; nil puts
	// it on the one that is configured.
	Networks *network.Membership
	// Domainname is the NIS domain name of its UTS namespace; empty keeps
	// the host's.
	Domainname string
	// MAC is the hardware address a person wants on the network that is
	// configured; empty leaves it open.
	MAC string
}

// CreateContainerRequest asks for a container in a pod.
type CreateContainerRequest struct {
	// PodID may be a unique prefix.
	PodID  string
	Config *runtime.ContainerConfig
	// ID is a fresh one of NewID, for who must know it before the container
	// is there; empty means any.
	ID string
	// Keep keeps the writable layer across stop, start and reboot, and
	// lets the container be started again, as a person's container.
	Keep bool
	// Folder is Container's; empty takes the image's files.
	Folder string
	// Extra is what CRI has no word for; nil is nothing.
	Extra *spec.Extra
	// checkpoint is the archive to restore it from; empty runs it afresh.
	checkpoint string
}

// TerminalSize is in characters.
type TerminalSize struct {
	Width, Height uint16
}

// IO carries a client's streams. Nil streams are not wanted. Stdout and
// Stderr are closed when the process's output has ended. Size is what a
// terminal has when its process begins, or what it is drawn anew in for a client
// that attaches, zero where it does not matter; later sizes come over Resize,
// which may be nil and is closed by the client's side.
type IO struct {
	Stdin          io.Reader
	Stdout, Stderr io.WriteCloser
	TTY            bool
	Size           TerminalSize
	Resize         <-chan TerminalSize
	// Wait slows the container down to this client, as a pipe would, for ever;
	// without it a client that lies far behind and takes nothing for a few
	// seconds is cut off.
	Wait bool
}

// ExecRequest asks for a process in a running container. Env, Cwd and User
// are added to or put in place of the container's own; User is "user[:group]".
type ExecRequest struct {
	ContainerID string
	Cmd         []string
	Env         []string
	Cwd         string
	User        string
	Privileged  bool
	IO          IO
	// Started is called, unless nil, once the process was executed.
	Started func()
}

// ExecResult is what ExecSync gives. Streams are cut at 16 MiB each.
type ExecResult struct {
	Stdout, Stderr []byte
	ExitCode       int
}

// EventType is the kind of an Event.
type EventType string

// The kinds of events; for a pod's own, ContainerID is the pod's ID.
const (
	EventCreated EventType = "created"
	EventStarted EventType = "started"
	EventStopped EventType = "stopped"
	EventDeleted EventType = "deleted"
	// EventOOM tells that the kernel killed in a running container for want of
	// memory. It may end of that, which EventStopped tells afterwards. At its
	// very start EventStarted may follow; the container's state is running.
	EventOOM EventType = "oom"
)

// Event tells of a change, with the pod as it then was.
type Event struct {
	Type        EventType
	ContainerID string
	At          time.Time
	Pod         Pod
	// Container is the one that changed, as it then was; nil for a pod's own
	// events and for one that is gone.
	Container *Container
}

// Service is what this package offers, written down in one place: *Manager
// has these methods, and who uses them declares the part it needs.
//
// IDs may be unique prefixes. Stop and Remove of an unknown ID succeed; of an
// empty one fail with ErrInvalidArgument. All methods are safe for concurrent
// use. Pod, Pods, Container and Containers answer from memory without waiting
// for any operation.
type Service interface {
	RunPod(ctx context.Context, req RunPodRequest) (podID string, err error)
	StopPod(ctx context.Context, podID string) error
	RemovePod(ctx context.Context, podID string) error
	// RevivePod makes a stopped pod of nodectl ready again.
	RevivePod(ctx context.Context, podID string) error
	// SetNetworks records the networks that a pod of nodectl is on now.
	SetNetworks(podID string, networks *network.Membership) error
	Pod(podID string) (Pod, error)
	Pods() []Pod

	CreateContainer(ctx context.Context, req CreateContainerRequest) (containerID string, err error)
	// StartContainer starts a created container. attach, when not nil, is
	// attached before the first instruction runs, and is served in the
	// background until the container's output ends; its channel Done (see
	// Attachment) tells when.
	StartContainer(ctx context.Context, containerID string, attach *IO) (*Attachment, error)
	// StopContainer sends the stop signal, then SIGKILL after timeout.
	// Zero kills at once.
	StopContainer(ctx context.Context, containerID string, timeout time.Duration) error
	// RemoveContainer kills a running one first.
	RemoveContainer(ctx context.Context, containerID string) error
	Container(containerID string) (Container, error)
	Containers() []Container
	// PodContainers are those of one pod; none when it is unknown.
	PodContainers(podID string) []Container
	// WaitContainer returns once the container has exited.
	WaitContainer(ctx context.Context, containerID string) (Container, error)
	KillContainer(ctx context.Context, containerID string, signal string) error

	// PauseContainer and ResumeContainer succeed when it is so already.
	PauseContainer(ctx context.Context, containerID string) error
	ResumeContainer(ctx context.Context, containerID string) error
	// CheckpointContainer writes an archive to the file location and leaves
	// the container running; zero timeout means the operations' own.
	CheckpointContainer(ctx context.Context, containerID, location string, timeout time.Duration) error
	// CheckpointPod writes checkpoints of all running containers of a pod,
	// of one moment, into an empty folder.
	CheckpointPod(ctx context.Context, podID, output string, containerIDs []string) error
	// RestorePod makes a pod and containers of such checkpoints, ready to
	// start, and gives the containers' IDs by name.
	RestorePod(ctx context.Context, req RestorePodRequest) (podID string, containers map[string]string, err error)

	UpdateContainer(ctx context.Context, containerID string, res *runtime.LinuxContainerResources) error
	UpdateContainerLimits(ctx context.Context, containerID string, res *runtime.LinuxContainerResources, extra *spec.Extra) error
	OOMKilled(containerID string) bool
	UpdatePod(ctx context.Context, podID string, overhead, resources *runtime.LinuxContainerResources) error
	ReopenLog(ctx context.Context, containerID string) error

	// ExecSync fails with context.DeadlineExceeded, and kills the process
	// and all it started, when timeout passes; zero means none.
	ExecSync(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (ExecResult, error)
	// Exec returns when the process ended and its output is drained.
	Exec(ctx context.Context, req ExecRequest) (exitCode int, err error)
	// Attach returns when the container's output ends or ctx is done.
	Attach(ctx context.Context, containerID string, streams IO) error
	// PortForward copies between stream and the port on the pod's localhost.
	PortForward(ctx context.Context, podID string, port uint16, stream io.ReadWriteCloser) error

	// Subscribe gives every event from now on. A subscriber too slow to
	// read is dropped: its channel is closed. cancel ends it and may be
	// called more than once.
	Subscribe() (events <-chan Event, cancel func())

	// RenameContainer changes the name of one of nodectl's containers.
	RenameContainer(ctx context.Context, containerID, name string) error
	// Processes lists the processes of a running container.
	Processes(containerID string) ([]int, error)

	ContainerStats(ctx context.Context, containerID string) (*runtime.ContainerStats, error)
	PodStats(ctx context.Context, podID string) (*runtime.PodSandboxStats, error)
	ContainerDetail(ctx context.Context, containerID string) (*ContainerDetail, error)
	PodDetail(ctx context.Context, podID string) (*PodDetail, error)
}

// Attachment is an attached client of a container that was just started.
type Attachment struct {
	// Done is closed when the container's output has ended and was copied.
	Done <-chan struct{}
}

var _ Service = (*Manager)(nil)
