package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/cgroups"
	"github.com/nodeagent/nodeagent/cri"
	"github.com/nodeagent/nodeagent/internal/calls"
	"github.com/nodeagent/nodeagent/nodeapi"
	"github.com/nodeagent/nodeagent/nodeapi/doctor"
)

// graceTimeout is how long calls under way may go on when the agent is stopped.
const graceTimeout = 3 * time.Second

func (d *daemon) buildCRI(context.Context) (err error) {
	d.cri, err = cri.New(cri.Config{
		Version:       semanticVersion(),
		RootDir:       d.cfg.Root,
		StateDir:      d.cfg.State,
		CgroupDriver:  cgroups.Driver(d.cfg.CgroupDriver),
		Handlers:      d.handlers(),
		Features:      cri.Features{SupplementalGroupsPolicy: true, UserNamespacesHostNetwork: true, MountOptions: true},
		StreamAddress: d.cfg.StreamAddress,
	}, cri.Deps{Sandboxes: d.sandboxes, Images: d.images, Network: d.network, Ready: d.ready})
	if err != nil {
		return err
	}
	if err := d.cri.Start(); err != nil {
		return err
	}
	d.onStop(d.cri.Stop)
	return nil
}

// handlers are the default runtime handler and the configured ones, all of which
// run containers the same way.
func (d *daemon) handlers() []cri.Handler {
	var list []cri.Handler
	for _, name := range append([]string{""}, d.cfg.handlerNames()...) {
		list = append(list, cri.Handler{
			Name:                    name,
			Snapshotter:             d.cfg.handlerSnapshotter(name),
			RecursiveReadOnlyMounts: d.features.RecursiveReadOnly,
			UserNamespaces:          d.features.UserNamespaces && d.features.IDMap,
		})
	}
	return list
}

// ready tells why containers cannot be run now; nil means that they can.
func (d *daemon) ready(ctx context.Context) error {
	_, err := d.supervisor.Info(ctx)
	if ctx.Err() != nil && err != nil {
		return fmt.Errorf("the supervisor does not answer: %w", err)
	}
	return err
}

func (d *daemon) buildNodeAPI(context.Context) (err error) {
	// No call is answered before the node API is built.
	d.calls = calls.NewTable(d.recorder, func(name string) (pod, container string) { return d.node.Resolve(name) })
	d.calls.Pods(func(meta *runtimeapi.PodSandboxMetadata) string { return d.node.PodOf(meta) }, func(id string) string {
		c, err := d.sandboxes.Container(id)
		if err != nil {
			return ""
		}
		return c.PodID
	})
	d.node, err = nodeapi.New(nodeapi.Deps{
		Config: nodeapi.Config{
			Root:          filepath.Join(d.cfg.Root, "nodectl"),
			State:         filepath.Join(d.cfg.State, "nodectl"),
			Volumes:       filepath.Join(d.cfg.Root, "volumes"),
			Events:        filepath.Join(d.cfg.State, "nodectl-events"),
			AgentRoot:     d.cfg.Root,
			AgentState:    d.cfg.State,
			Version:       semanticVersion(),
			Snapshotter:   d.cfg.Snapshotter,
			CgroupDriver:  d.cfg.CgroupDriver,
			CgroupVersion: string(cgroups.Detect()),
			Swap:          d.features.Swap,

			RecursiveReadOnly: d.features.RecursiveReadOnly,
		},
		Sandboxes:  d.sandboxes,
		Images:     d.images,
		Layers:     d.snapshots,
		Supervisor: d.supervisor,
		Network:    d.network,
		Networks:   d.people,
		Recorder:   d.recorder,
		Operations: d.sandboxes,
		Calls:      d.calls,
		Host:       d.host(),
		Cgroups:    d.cgroups,
	})
	if err != nil {
		return err
	}
	d.onStop(func(context.Context) error { d.node.Close(); return nil })
	return nil
}

// host is what nodectl doctor looks at.
func (d *daemon) host() doctor.Host {
	socket, _ := d.cfg.socketPath() // it is bound
	return doctor.Host{
		Root: "/", AgentRoot: d.cfg.Root, AgentState: d.cfg.State, Socket: socket, ConfDir: d.cfg.CNIConfDir,
		CgroupDriver: d.cfg.CgroupDriver, Network: d.network, Supervisor: d.supervisor, Orphans: d.sandboxes,
		Logs: d.logFolders, Statfs: unix.Statfs, LookPath: exec.LookPath,
	}
}

// logFolders are those that the logs of containers are in.
func (d *daemon) logFolders() []string {
	var dirs []string
	for _, c := range d.sandboxes.Containers() {
		if c.LogPath != "" {
			dirs = append(dirs, filepath.Dir(c.LogPath))
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

func (d *daemon) buildGRPC(context.Context) error {
	d.calls.Before(d.node.Settle)
	stopping, stop := context.WithCancel(context.Background())
	d.grpc = grpc.NewServer(slices.Concat(d.measured.Options(), cri.ServerOptions(logrus.NewEntry(logrus.StandardLogger())),
		[]grpc.ServerOption{grpc.ChainStreamInterceptor(endWith(stopping))}, d.calls.ServerOptions())...)
	d.cri.Register(d.grpc)
	d.node.Register(d.grpc)
	d.onStop(d.stopGRPC)
	d.onStop(func(context.Context) error { stop(); return nil }) // before that
	return nil
}

// endWith ends streams once stopping is done: those of events and logs would go
// on for ever, and the next agent waits for this one.
func endWith(stopping context.Context) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		defer context.AfterFunc(stopping, cancel)()
		err := handler(srv, boundStream{stream, ctx})
		if err != nil && stopping.Err() != nil {
			return fmt.Errorf("the agent is stopping: %w", errdefs.ErrUnavailable)
		}
		return err
	}
}

// boundStream is a stream with another context.
type boundStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s boundStream) Context() context.Context { return s.ctx }

// stopGRPC lets calls end, then cuts off those that go on.
func (d *daemon) stopGRPC(context.Context) error {
	done := make(chan struct{})
	go func() {
		d.grpc.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(graceTimeout):
		d.grpc.Stop()
		<-done
	}
	return nil
}
