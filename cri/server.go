// Package cri is the CRI server: runtime.v1 RuntimeService and ImageService
// of cri-api v0.37.2, one file for each RPC. An RPC validates its request,
// translates it, calls the sandbox or image service and translates the answer
// back; nothing is kept here. docs/cri.md lists the corner cases.
//
// Errors come from below with a kind of containerd/errdefs; UnaryInterceptor
// and StreamInterceptor turn kinds into gRPC codes and log each failure once.
// Only what was made over CRI is seen over CRI: an ID of anybody else's pod
// or container is unknown here.
package cri

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/cgroups"
	"github.com/nodeagent/nodeagent/cri/stream"
	"github.com/nodeagent/nodeagent/imageservice"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Sandboxes is what the server needs of pods and containers; the life story
// of each method is at sandbox.Service.
type Sandboxes interface {
	RunPod(ctx context.Context, req sandbox.RunPodRequest) (string, error)
	StopPod(ctx context.Context, podID string) error
	RemovePod(ctx context.Context, podID string) error
	Pod(podID string) (sandbox.Pod, error)
	Pods() []sandbox.Pod
	UpdatePod(ctx context.Context, podID string, overhead, resources *runtime.LinuxContainerResources) error

	CreateContainer(ctx context.Context, req sandbox.CreateContainerRequest) (string, error)
	StartContainer(ctx context.Context, containerID string, attach *sandbox.IO) (*sandbox.Attachment, error)
	StopContainer(ctx context.Context, containerID string, timeout time.Duration) error
	RemoveContainer(ctx context.Context, containerID string) error
	Container(containerID string) (sandbox.Container, error)
	Containers() []sandbox.Container
	PodContainers(podID string) []sandbox.Container
	UpdateContainer(ctx context.Context, containerID string, res *runtime.LinuxContainerResources) error
	ReopenLog(ctx context.Context, containerID string) error
	CheckpointContainer(ctx context.Context, containerID, location string, timeout time.Duration) error
	CheckpointPod(ctx context.Context, podID, output string, containerIDs []string) error
	RestorePod(ctx context.Context, req sandbox.RestorePodRequest) (podID string, containers map[string]string, err error)

	ExecSync(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (sandbox.ExecResult, error)
	stream.Runtime

	Subscribe() (events <-chan sandbox.Event, cancel func())
	ReadAhead(ctx context.Context, podIDs, containerIDs []string)
	ContainerStats(ctx context.Context, containerID string) (*runtime.ContainerStats, error)
	PodStats(ctx context.Context, podID string) (*runtime.PodSandboxStats, error)
	ContainerDetail(ctx context.Context, containerID string) (*sandbox.ContainerDetail, error)
	PodDetail(ctx context.Context, podID string) (*sandbox.PodDetail, error)
}

// Images is what the server needs of images; see imageservice.Service.
type Images interface {
	Pull(ctx context.Context, req imageservice.PullRequest) (imageservice.PullResult, error)
	Image(ctx context.Context, ref string) (imageservice.Image, error)
	Images(ctx context.Context) ([]imageservice.Image, error)
	Remove(ctx context.Context, ref string) error
	FilesystemUsage(ctx context.Context) (imageservice.FilesystemUsage, error)
}

// Network is what the server needs of the network.
type Network interface {
	// Status returns nil when pods can be wired, else why they cannot.
	Status(ctx context.Context) error
	// SetPodCIDR hands on the node's ranges as kubelet learnt them.
	SetPodCIDR(ctx context.Context, cidrs []netip.Prefix) error
}

// Handler is a runtime handler that pods may ask for.
type Handler struct {
	// Name is empty for the default handler.
	Name string
	// Snapshotter is where images for it go; empty is the usual one.
	Snapshotter string
	// RecursiveReadOnlyMounts and UserNamespaces are told in Status.
	RecursiveReadOnlyMounts, UserNamespaces bool
}

// Features are the abilities that hold for every handler, told in Status.
type Features struct {
	SupplementalGroupsPolicy  bool
	UserNamespacesHostNetwork bool
	MountOptions              bool
}

// Config says what the server tells of itself.
type Config struct {
	// Version is the agent's, by semver.org; Version answers with it.
	Version string
	// RootDir and StateDir are shown in the verbose Status.
	RootDir, StateDir string
	// CgroupDriver is what RuntimeConfig answers; empty means cgroupfs.
	CgroupDriver cgroups.Driver
	// Handlers are the runtime handlers. The default one, named "", is added
	// without features when it is missing.
	Handlers []Handler
	Features Features
	// StreamAddress is where exec, attach and port-forward are served;
	// empty means 127.0.0.1 and a free port.
	StreamAddress string
}

// Deps are the parts the server stands on. All but Ready and Log are needed.
type Deps struct {
	Sandboxes Sandboxes
	Images    Images
	Network   Network
	// Ready tells why containers cannot be run; nil, or a nil error, means
	// that they can.
	Ready func(ctx context.Context) error
	// Log gets the failures of streaming sessions; nil means the standard logger.
	Log *logrus.Entry
}

// Server serves both CRI services. Its methods named as RPCs implement them.
type Server struct {
	// Opting out of forward compatibility: an RPC without a method here must
	// not compile.
	runtime.UnsafeRuntimeServiceServer
	runtime.UnsafeImageServiceServer

	config    Config
	sandboxes Sandboxes
	images    Images
	network   Network
	ready     func(ctx context.Context) error
	streams   *stream.Server
	log       *logrus.Entry
	// sizeWarned is when noteSize warned last, in nanoseconds since 1970.
	sizeWarned atomic.Int64
}

var (
	_ runtime.RuntimeServiceServer = (*Server)(nil)
	_ runtime.ImageServiceServer   = (*Server)(nil)
)

// New returns a server that has not started. It fails with ErrInvalidArgument
// when a part is missing or the version is empty.
func New(config Config, deps Deps) (*Server, error) {
	switch {
	case deps.Sandboxes == nil:
		return nil, fmt.Errorf("make CRI server: no sandbox service: %w", errdefs.ErrInvalidArgument)
	case deps.Images == nil:
		return nil, fmt.Errorf("make CRI server: no image service: %w", errdefs.ErrInvalidArgument)
	case deps.Network == nil:
		return nil, fmt.Errorf("make CRI server: no network: %w", errdefs.ErrInvalidArgument)
	case config.Version == "":
		return nil, fmt.Errorf("make CRI server: no version: %w", errdefs.ErrInvalidArgument)
	}
	if deps.Log == nil {
		deps.Log = logrus.NewEntry(logrus.StandardLogger())
	}
	config.Handlers = withDefaultHandler(config.Handlers)
	s := &Server{
		config:    config,
		sandboxes: deps.Sandboxes,
		images:    deps.Images,
		network:   deps.Network,
		ready:     deps.Ready,
		log:       deps.Log,
	}
	s.streams = stream.New(stream.Config{Address: config.StreamAddress, Log: deps.Log}, deps.Sandboxes)
	return s, nil
}

// Register adds both services to a gRPC server that was made with ServerOptions.
func (s *Server) Register(g *grpc.Server) {
	runtime.RegisterRuntimeServiceServer(g, s)
	runtime.RegisterImageServiceServer(g, s)
}

// Start begins to serve exec, attach and port-forward streams. It returns once
// the address is bound. Stop must be called after a Start that succeeded.
func (s *Server) Start() error {
	return s.streams.Start()
}

// Stop ends all streaming sessions and waits for them until ctx is done. The
// gRPC server is its owner's to stop. It may be called more than once.
func (s *Server) Stop(ctx context.Context) error {
	return s.streams.Stop(ctx)
}

// withDefaultHandler returns the handlers with one named "" among them: kubelet
// reads the features of pods without a RuntimeClass there.
func withDefaultHandler(handlers []Handler) []Handler {
	for _, h := range handlers {
		if h.Name == "" {
			return handlers
		}
	}
	return append([]Handler{{}}, handlers...)
}

// snapshotter is where images for a handler go.
func (s *Server) snapshotter(handler string) string {
	for _, h := range s.config.Handlers {
		if h.Name == handler {
			return h.Snapshotter
		}
	}
	return ""
}

// knowsHandler tells whether pods and images may ask for a handler.
func (s *Server) knowsHandler(name string) bool {
	for _, h := range s.config.Handlers {
		if h.Name == name {
			return true
		}
	}
	return false
}
