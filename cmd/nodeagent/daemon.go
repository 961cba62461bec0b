package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"

	"github.com/nodeagent/nodeagent/cgroups"
	"github.com/nodeagent/nodeagent/cri"
	"github.com/nodeagent/nodeagent/imageservice"
	"github.com/nodeagent/nodeagent/internal/calls"
	"github.com/nodeagent/nodeagent/internal/host"
	"github.com/nodeagent/nodeagent/internal/recorder"
	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/network/userdefined"
	"github.com/nodeagent/nodeagent/nodeapi"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/nodeagent/nodeagent/snapshotter"
	"github.com/nodeagent/nodeagent/supervisor"
)

// stopTimeout bounds how long the parts get to end when the agent is stopped.
const stopTimeout = 20 * time.Second

// daemon is the agent's parts, in the order they are built in.
type daemon struct {
	cfg      Config
	features host.Features
	// fresh are the folders that were not there before.
	fresh    []string
	listener net.Listener

	recorder   *recorder.Recorder
	calls      *calls.Table
	cgroups    *cgroups.Manager
	supervisor *supervisor.Client
	snapshots  *snapshotter.Set
	// layers is the usual snapshotter, and otherLayers are further ones.
	layers      snapshots.Snapshotter
	otherLayers map[string]snapshots.Snapshotter
	images      *imageservice.Store
	network     *network.Manager
	people      *userdefined.Manager
	sandboxes   *sandbox.Manager
	// closeSandboxes may be called more than once.
	closeSandboxes func() error
	cri            *cri.Server
	node           *nodeapi.Server
	grpc           *grpc.Server
	measured       cri.CallMetrics

	// stops undo what was built, in reverse.
	stops []func(ctx context.Context) error
}

// part is one step of building the daemon.
type part struct {
	name  string
	build func(ctx context.Context) error
}

// serve builds every part, serves until ctx is done, and takes the parts down
// in reverse. Pods go on. load reads the configuration again.
func serve(ctx context.Context, cfg Config, load func() (Config, error)) error {
	hangups, stopReloads := reloads()
	defer stopReloads()
	d := &daemon{cfg: cfg}
	parts := append(d.mechanisms(),
		part{"CRI server", d.buildCRI},
		part{"node API", d.buildNodeAPI},
		part{"metrics", d.buildMetrics},
		part{"gRPC server", d.buildGRPC},
	)
	built := d.build(ctx, parts)
	err := built
	if built == nil {
		err = d.run(ctx, hangups, load)
	}
	if stopErr := d.stop(); err == nil {
		err = stopErr
	}
	if built != nil {
		d.dropFresh()
	}
	return err
}

// mechanisms are the parts below the servers.
func (d *daemon) mechanisms() []part {
	return []part{
		{"host", d.checkHost},
		{"folders", d.makeFolders},
		{"socket", d.bindSocket},
		{"cgroups", d.buildCgroups},
		{"supervisor", d.buildSupervisor},
		{"snapshotter", d.buildSnapshotter},
		{"images", d.buildImages},
		{"network", d.buildNetwork},
		{"people's networks", d.buildPeopleNetworks},
		{"recorder", d.buildRecorder},
		{"sandboxes", d.buildSandboxes},
	}
}

func (d *daemon) build(ctx context.Context, parts []part) error {
	began := time.Now()
	for _, p := range parts {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("stopped while starting: %w", err)
		}
		if err := p.build(ctx); err != nil {
			return err
		}
		logrus.WithField("part", p.name).Debug("built")
	}
	logrus.WithField("took", time.Since(began).Round(time.Millisecond)).Debug("all parts built")
	return nil
}

// onStop remembers how to take a part down.
func (d *daemon) onStop(fn func(ctx context.Context) error) {
	d.stops = append(d.stops, fn)
}

// stop takes down what was built, in reverse, and goes on past failures.
func (d *daemon) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var first error
	for _, fn := range slices.Backward(d.stops) {
		if err := fn(ctx); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// run serves until ctx is done or the socket fails, and reloads the
// configuration when it is told to.
func (d *daemon) run(ctx context.Context, hangups <-chan os.Signal, load func() (Config, error)) error {
	failed := make(chan error, 1)
	go func() { failed <- d.grpc.Serve(d.listener) }() // ends with grpc.Stop, in buildGRPC's stop
	logrus.WithFields(logrus.Fields{"version": semanticVersion(), "listen": d.cfg.Listen, "pid": os.Getpid()}).Info("nodeagent is ready")
	running := d.cfg
	for {
		select {
		case <-ctx.Done():
			logrus.Info("nodeagent stops; pods go on")
			return nil
		case err := <-failed:
			return fmt.Errorf("serve %s: %w", d.cfg.Listen, err)
		case <-hangups:
			running = reload(running, load)
			if err := d.images.SetPinned(running.PinnedImages); err != nil { // validated
				logrus.WithError(err).Error("the images that are pinned stay as they were")
			}
		}
	}
}
