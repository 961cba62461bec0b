package sandbox

import (
	"context"
	"io"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nodeagent/nodeagent/cgroups"
	"github.com/nodeagent/nodeagent/internal/recorder"
	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/sandbox/spec"
	"github.com/nodeagent/nodeagent/supervisor"
)

// Config says where things are and how they are done. Root and State are the
// agent's own folders; this package uses "pods" and "containers" in Root,
// "sandboxes" and "containers" in State.
type Config struct {
	// Root outlasts a reboot.
	Root string
	// State is voided by a reboot, best on tmpfs.
	State string
	// CgroupParent is the cgroup below which pods without a parent of
	// their own are put, in "pods"; empty means "/nodeagent". With
	// SystemdCgroup it is the folder of a slice.
	CgroupParent string
	// SystemdCgroup says that cgroup parents are slices, and that
	// containers are put into scopes below them.
	SystemdCgroup bool
	// Handlers are the runtime handlers there are, by name; the empty one is
	// always there.
	Handlers map[string]Handler
	// Features is what the host can do.
	Features spec.Features
	// CDIDirs are where CDI files are looked for; nil means the usual ones.
	CDIDirs []string
	// MaxLogLine is the longest log line in bytes before it is split; zero
	// means 16384.
	MaxLogLine int
	// PidsLimit limits the tasks of each container; zero sets none.
	PidsLimit int64
	// OperationTimeout bounds a create or a stop as a whole, however often
	// it was joined; zero means 4 minutes, kubelet's patience for a pod.
	OperationTimeout time.Duration
	// RecoveryTimeout bounds recovery at start for each pod and container;
	// zero means 10 seconds.
	RecoveryTimeout time.Duration
	// KillWait is how long a stop waits for a container after SIGKILL
	// before it leaves the waiting to the background; zero means 30 seconds.
	KillWait time.Duration
	// SlowAfter is after how long an operation is reported as slow; zero
	// means 10 seconds.
	SlowAfter time.Duration
	// retryPause is the first pause between two attempts in the background.
	retryPause time.Duration
}

// Handler is what the containers of a runtime handler's pods have of their own.
type Handler struct {
	// PidsLimit takes the place of Config.PidsLimit; zero does not.
	PidsLimit int64
	// NoHostDevices gives privileged containers the devices that they name,
	// and no others.
	NoHostDevices bool
}

// Image is what a container needs to know of its image.
type Image struct {
	// ID is the digest of the image's configuration, "sha256:…".
	ID string
	// ChainID names the snapshot of the topmost layer; empty for an image
	// without layers.
	ChainID string
	// Config is the image's configuration. It is not changed.
	Config *ocispec.Image
}

// Images finds local images.
type Images interface {
	// ResolveImage finds an image by ID, unique prefix, tag or digest, and
	// fails with ErrNotFound.
	ResolveImage(ctx context.Context, ref string) (Image, error)
	// Unpack makes sure that the layers of an image are whole in the
	// snapshotter of a runtime handler, and returns the label that makes
	// Snapshots use that one.
	Unpack(ctx context.Context, imageID, handler string) (snapshots.Opt, error)
}

// Snapshots keeps root filesystems.
type Snapshots interface {
	Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error)
	View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error)
	Mounts(ctx context.Context, key string) ([]mount.Mount, error)
	Remove(ctx context.Context, key string) error
	Usage(ctx context.Context, key string) (snapshots.Usage, error)
	Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error
}

// Mounter mounts what Snapshots gives.
type Mounter interface {
	Mount(ctx context.Context, mounts []mount.Mount, target string) error
	// Unmount is lazy; nothing mounted is no error.
	Unmount(target string) error
}

// Network wires pods.
type Network interface {
	Add(ctx context.Context, a network.Attachment) (*network.Result, error)
	// Del is idempotent and works when the network namespace is gone.
	Del(ctx context.Context, a network.Attachment) error
	// GC gives back what belongs to none of keep.
	GC(ctx context.Context, keep []network.Attachment) error
	// Wired lists the IDs of the pods that have anything of the network.
	Wired() ([]string, error)
}

// Cgroups makes, reads and removes cgroups; paths are relative to each
// hierarchy's root.
type Cgroups interface {
	Create(ctx context.Context, path string, res *specs.LinuxResources) error
	Update(ctx context.Context, path string, res *specs.LinuxResources) error
	// Remove is idempotent and kills nothing.
	Remove(ctx context.Context, path string) error
	// Warm readies the kernel for a process to be moved soon.
	Warm()
	// Kill kills everything below, and waits for it, bounded.
	Kill(ctx context.Context, path string) error
	Stats(ctx context.Context, path string) (*cgroups.Stats, error)
	// ContainerUsage and PodUsage are those parts of Stats that change all
	// the time.
	ContainerUsage(ctx context.Context, path string) (*cgroups.Stats, error)
	PodUsage(ctx context.Context, path string) (*cgroups.Stats, error)
	// OOMKills counts the processes of a cgroup and all below it that were
	// killed for want of memory.
	OOMKills(path string) (uint64, error)
	// Procs lists the processes of a cgroup and all below it.
	Procs(path string) ([]int, error)
	Exists(path string) bool
	// Children names the cgroups directly below one, in any hierarchy.
	Children(path string) []string
	// Cpuset gives the CPUs and memory nodes a cgroup may use; empty
	// where the host has no cpuset controller.
	Cpuset(path string) (cpus, mems string, err error)
	// Files gives what files of a v2 cgroup hold, as far as they are there.
	Files(path string, names []string) (map[string]string, error)
}

// Supervisor runs containers. Errors are of the kinds that package
// supervisor names.
type Supervisor interface {
	Start(ctx context.Context, c supervisor.Container) (pid int, err error)
	Attach(ctx context.Context, id string, streams supervisor.Streams) error
	Resize(ctx context.Context, id string, width, height uint16) error
	Signal(ctx context.Context, id string, sig syscall.Signal, all bool) error
	Delete(ctx context.Context, id string) (supervisor.Exit, error)
	Exec(ctx context.Context, e supervisor.Exec) (pid int, err error)
	WaitExec(ctx context.Context, id, execID string) (supervisor.Exit, error)
	KillExec(ctx context.Context, id, execID string) error
	ReopenLog(ctx context.Context, id string) error
	Update(ctx context.Context, id string, res *specs.LinuxResources) error
	// Pause and Resume succeed when the container is so already.
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
	// CheckCRIU fails with ErrNotImplemented where nothing can be checkpointed.
	CheckCRIU(ctx context.Context) error
	// Checkpoint dumps into an empty folder and leaves the container as it
	// was. A dump may outlast ctx; Resume and Delete wait for it.
	Checkpoint(ctx context.Context, id, images string) error
	List(ctx context.Context) ([]supervisor.State, error)
	StartPodInit(ctx context.Context, p supervisor.PodInit) (pid int, err error)
	StopPodInit(ctx context.Context, id string) error
	Subscribe(ctx context.Context) (<-chan supervisor.Event, error)
	Close() error
}

// Deps are the mechanisms that a Manager combines. All are needed.
type Deps struct {
	Images    Images
	Snapshots Snapshots
	Mounter   Mounter
	Network   Network
	Cgroups   Cgroups
	// ApplyLayer unpacks a tar, which it distrusts and closes, into an
	// empty upper folder of an overlay on lowers, the nearest first.
	ApplyLayer func(ctx context.Context, r io.ReadCloser, dir string, lowers []string) error
	// PackLayer writes such an upper folder, which nobody changes meanwhile, as
	// the tar of an OCI layer.
	PackLayer func(ctx context.Context, w io.Writer, dir string) error
	// Connect gives a connection to the node's supervisor, and starts one
	// when there is none. It is called again when a connection is lost.
	Connect func(ctx context.Context) (Supervisor, error)
	// Recorder keeps what happened, for who asks later; nil keeps nothing.
	Recorder *recorder.Recorder
}
