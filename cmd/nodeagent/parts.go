package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"
	containerdlog "github.com/containerd/log"
	"github.com/sirupsen/logrus"

	"github.com/nodeagent/nodeagent/cgroups"
	"github.com/nodeagent/nodeagent/imageservice"
	"github.com/nodeagent/nodeagent/internal/host"
	"github.com/nodeagent/nodeagent/internal/recorder"
	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/network/userdefined"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/nodeagent/nodeagent/sandbox/record"
	"github.com/nodeagent/nodeagent/sandbox/spec"
	"github.com/nodeagent/nodeagent/supervisor"
)

// cgroupMount is where every distribution mounts cgroups.
const cgroupMount = "/sys/fs/cgroup"

func (d *daemon) checkHost(context.Context) error {
	level, err := logrus.ParseLevel(d.cfg.LogLevel)
	if err != nil {
		return fmt.Errorf("log_level: %w", err)
	}
	logrus.SetLevel(level)
	quietLibraries(level)
	if err := preflight(d.cfg); err != nil {
		return err
	}
	d.features, err = host.Detect(cgroupMount)
	return err
}

// quietLibraries keeps what containerd's registry client tells of each attempt
// out of the log, unless everything is wanted; its failures come back as errors.
func quietLibraries(level logrus.Level) {
	if level >= logrus.DebugLevel {
		return
	}
	quiet := logrus.New()
	quiet.SetLevel(logrus.WarnLevel)
	containerdlog.L = logrus.NewEntry(quiet)
}

func (d *daemon) makeFolders(context.Context) error {
	for _, folder := range []struct {
		path string
		mode os.FileMode
	}{
		{d.cfg.Root, 0o700},
		// The root user of a pod's user namespace must be able to pass
		// through to its root filesystem, but not to list what is there.
		{d.cfg.State, 0o711},
	} {
		_, err := os.Lstat(folder.path)
		fresh := errors.Is(err, fs.ErrNotExist)
		if err := makeFolder(folder.path, folder.mode); err != nil {
			return err
		}
		lock, err := lockFolder(folder.path)
		if err != nil {
			return err
		}
		if fresh {
			d.fresh = append(d.fresh, folder.path)
		}
		d.onStop(func(context.Context) error { return lock.Close() })
	}
	return nil
}

// dropFresh takes away the folders that a start which failed has made, if
// nothing but their lock is in them.
func (d *daemon) dropFresh() {
	for _, folder := range d.fresh {
		if entries, err := os.ReadDir(folder); err == nil && len(entries) == 1 && entries[0].Name() == lockName {
			os.RemoveAll(folder)
		}
	}
}

func (d *daemon) bindSocket(context.Context) error {
	path, err := d.cfg.socketPath()
	if err != nil {
		return err
	}
	d.listener, err = listen(path)
	if err != nil {
		return err
	}
	d.onStop(func(context.Context) error {
		d.listener.Close() // removes the socket; gRPC may have closed it already
		return nil
	})
	return nil
}

// buildRecorder opens what nodectl why reads. An agent without it works: a
// folder that cannot be written to is no reason to leave pods alone.
func (d *daemon) buildRecorder(context.Context) error {
	kept, err := recorder.Open(recorder.Config{Dir: filepath.Join(d.cfg.Root, "recorder")})
	if err != nil {
		logrus.WithError(err).Warn("nothing is recorded for nodectl why")
		return nil
	}
	d.recorder = kept
	kept.Note(recorder.Entry{Kind: recorder.KindAgent, Text: "nodeagent " + semanticVersion() + " was started"})
	d.onStop(func(context.Context) error {
		kept.Note(recorder.Entry{Kind: recorder.KindAgent, Text: "nodeagent was stopped"})
		return kept.Close()
	})
	return nil
}

func (d *daemon) buildCgroups(ctx context.Context) (err error) {
	d.cgroups, err = cgroups.New(cgroups.Config{Driver: cgroups.Driver(d.cfg.CgroupDriver)})
	if err != nil {
		return err
	}
	d.onStop(func(context.Context) error { d.cgroups.Close(); return nil })
	release, err := d.cgroups.Hold(ctx, d.cfg.CgroupParent)
	if errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("cgroup_parent: another nodeagent uses %s; give this one its own", d.cfg.CgroupParent)
	}
	if err != nil {
		return fmt.Errorf("cgroup_parent: %w", err)
	}
	d.onStop(func(context.Context) error { return release() })
	return nil
}

func (d *daemon) launch() (supervisor.Launch, error) {
	binary, err := d.cfg.supervisorBinary()
	return supervisor.Launch{
		Socket:       filepath.Join(d.cfg.State, "supervisor.sock"),
		Binary:       binary,
		State:        filepath.Join(d.cfg.State, "supervisor"),
		CgroupParent: d.cfg.CgroupParent,
		LogFile:      filepath.Join(d.cfg.State, "supervisor.log"),
		LogLevel:     d.cfg.LogLevel,
	}, err
}

func (d *daemon) buildSupervisor(ctx context.Context) error {
	launch, err := d.launch()
	if err != nil {
		return err
	}
	d.supervisor, err = supervisor.Ensure(ctx, launch)
	if err != nil {
		return err
	}
	d.onStop(func(context.Context) error { return d.supervisor.Close() })
	return nil
}

func (d *daemon) buildImages(context.Context) (err error) {
	d.images, err = imageservice.New(imageservice.Config{
		Root:        filepath.Join(d.cfg.Root, "images"),
		CertsDirs:   d.cfg.CertsDirs,
		Snapshotter: d.layers,
		DefaultName: d.cfg.Snapshotter,
		Others:      d.otherLayers,
		Pinned:      d.cfg.PinnedImages,
	})
	if err != nil {
		return err
	}
	d.onStop(func(context.Context) error { return d.images.Close() })
	return nil
}

func (d *daemon) buildNetwork(context.Context) (err error) {
	d.network, err = network.New(network.Config{
		ConfDir:        d.cfg.CNIConfDir,
		BinDirs:        d.cfg.CNIBinDirs,
		StateDir:       filepath.Join(d.cfg.State, "network"),
		RootDir:        filepath.Join(d.cfg.Root, "network"),
		Instance:       d.instance(),
		BuiltinPlugins: d.cfg.BuiltinPlugins,
		Handlers:       d.cfg.handlerNetworks(),
	})
	if err != nil {
		return err
	}
	d.onStop(func(context.Context) error { d.network.Close(); return nil })
	return nil
}

// resolvConf is the node's.
const resolvConf = "/etc/resolv.conf"

// networkRecords is the version of people's networks' records.
const networkRecords = 1

func (d *daemon) buildPeopleNetworks(context.Context) error {
	state := filepath.Join(d.cfg.State, "networks")
	records, err := record.Open(filepath.Join(d.cfg.Root, "networks"), "network", networkRecords)
	if err != nil {
		return err
	}
	members, err := record.Open(filepath.Join(state, "members"), "member", networkRecords)
	if err != nil {
		return err
	}
	d.people, err = userdefined.New(userdefined.Config{
		StateDir: state, Instance: d.instance(), Networks: records, Members: members,
		Plugins: d.network.Plugins(), Table: d.network.Table(), Node: d.network, ResolvConf: resolvConf,
	})
	if err != nil {
		return err
	}
	d.onStop(func(context.Context) error { d.people.Close(); return nil })
	return nil
}

func (d *daemon) buildSandboxes(ctx context.Context) (err error) {
	d.sandboxes, err = sandbox.New(ctx, sandbox.Config{
		Root:          d.cfg.Root,
		State:         d.cfg.State,
		CgroupParent:  d.cfg.CgroupParent,
		SystemdCgroup: d.cfg.CgroupDriver == string(cgroups.Systemd),
		Features:      d.specFeatures(),
		Handlers:      d.cfg.handlerDefaults(),
		CDIDirs:       d.cfg.CDISpecDirs,
		MaxLogLine:    int(d.cfg.MaxLogLine),
	}, sandbox.Deps{
		Images:     images{d.images, &d.cfg},
		Snapshots:  d.snapshots,
		Mounter:    mounter{},
		Network:    networks{d.network, d.people},
		Cgroups:    d.cgroups,
		Connect:    d.connect,
		Recorder:   d.recorder,
		ApplyLayer: applyLayer,
		PackLayer:  packLayer,
	})
	if err != nil {
		return err
	}
	d.images.SetInUse(d.sandboxes)
	d.closeSandboxes = sync.OnceValue(d.sandboxes.Close)
	d.onStop(func(context.Context) error { return d.closeSandboxes() })
	return nil
}

// connect gives sandboxes a connection to the supervisor, and starts a new one
// when the old is gone.
func (d *daemon) connect(ctx context.Context) (sandbox.Supervisor, error) {
	launch, err := d.launch()
	if err != nil {
		return nil, err
	}
	return supervisor.Ensure(ctx, launch)
}

func (d *daemon) specFeatures() spec.Features {
	f := spec.Features{
		Cgroups:           spec.CgroupMode(cgroups.Detect()),
		AppArmor:          d.features.AppArmor,
		SELinux:           d.features.SELinux,
		Seccomp:           d.features.Seccomp,
		Swap:              d.features.Swap,
		HugeTLB:           d.features.HugeTLB,
		RecursiveReadOnly: d.features.RecursiveReadOnly,
		IDMap:             d.features.IDMap,
		Capabilities:      d.features.Capabilities,
	}
	return f
}

// instance tells agents of one machine apart by the folder that only one of
// them can have.
func (d *daemon) instance() string {
	sum := sha256.Sum256([]byte(d.cfg.Root))
	return hex.EncodeToString(sum[:4])
}
