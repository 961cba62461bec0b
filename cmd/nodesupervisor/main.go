// Nodesupervisor is the parent of every container on the node. The agent
// starts it (package supervisor, Ensure); a person hardly ever does.
//
// It is built static and without the weight of what it does not use:
//
//	CGO_ENABLED=1 go build -trimpath -tags seccomp,netgo,osusergo \
//		-ldflags '-s -w -linkmode external -extldflags -static -X main.version=VERSION' \
//		-o bin/nodesupervisor ./cmd/nodesupervisor
//
// which needs gcc and libseccomp's static library (libseccomp-dev).
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	_ "github.com/nodeagent/nodeagent/cmd/nodesupervisor/containerinit" // libcontainer runs this program anew as the init of each container
	"github.com/nodeagent/nodeagent/supervisor/server"
	"github.com/nodeagent/nodeagent/supervisor/server/owncgroup"
	"github.com/nodeagent/nodeagent/supervisor/server/selfexe"
)

// version is set by the build.
var version = "unknown"

// gcPercent trades processor time, of which the supervisor uses hardly any,
// for memory.
const gcPercent = 25

// options are the command line.
type options struct {
	config       server.Config
	cgroupParent string
	logLevel     string
	readyFD      int
	printVersion bool
}

func main() {
	opts := parse()
	if opts.printVersion {
		fmt.Println(version)
		return
	}
	if err := start(opts); err != nil {
		logrus.WithError(err).Error("supervisor failed")
		os.Exit(1)
	}
}

func parse() options {
	var o options
	flag.StringVar(&o.config.Socket, "socket", "/run/nodeagent/supervisor.sock", "Unix socket to listen on")
	flag.StringVar(&o.config.State, "state", "/run/nodeagent/supervisor", "state directory, on tmpfs")
	flag.StringVar(&o.cgroupParent, "cgroup-parent", "", "cgroup below which to live in a cgroup \"supervisor\" (default: stay)")
	flag.StringVar(&o.logLevel, "log-level", "info", "debug, info, warning or error")
	flag.IntVar(&o.readyFD, "ready-fd", -1, "descriptor to write \"ready\" to once listening")
	flag.BoolVar(&o.printVersion, "version", false, "print the version")
	flag.Parse()
	o.config.Version = version
	return o
}

// start makes the sealed copy of this program first and, as that copy, runs.
func start(opts options) error {
	ready := openReady(opts.readyFD)
	err := respawnOrServe(opts, ready)
	if err != nil && ready != nil {
		fmt.Fprintln(ready, err)
	}
	return err
}

func respawnOrServe(opts options, ready *os.File) error {
	if opts.config.Socket == "" || opts.config.State == "" || flag.NArg() > 0 {
		return fmt.Errorf("usage: nodesupervisor --socket PATH --state DIR")
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("must run as root")
	}
	if selfexe.Sealed() {
		return serve(opts, ready)
	}
	if ready == nil {
		return selfexe.Respawn()
	}
	return selfexe.Respawn(ready)
}

// openReady returns the readiness pipe, closed to children; nil without one.
func openReady(fd int) *os.File {
	if fd < 3 {
		return nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "ready")
}

func serve(opts options, ready *os.File) error {
	level, err := logrus.ParseLevel(opts.logLevel)
	if err != nil {
		return err
	}
	logrus.SetLevel(level)
	debug.SetGCPercent(gcPercent)
	// libcontainer hands it to the init of each container and exec, which has
	// nothing to do at the same time as something else, and needs fewer threads so.
	_ = os.Setenv("GOMAXPROCS", "1")
	// The program's file name is that of a descriptor.
	_ = os.WriteFile("/proc/self/comm", []byte("nodesupervisor"), 0)
	var group *owncgroup.Group
	if opts.cgroupParent != "" {
		if group, err = owncgroup.Join(opts.cgroupParent); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	// Caught, not ignored: containers would inherit that.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, unix.SIGHUP, unix.SIGPIPE)
	defer signal.Stop(caught)
	unix.Umask(0o022)
	s, err := server.New(ctx, opts.config)
	if err != nil {
		return err
	}
	defer s.Close()
	logrus.WithField("pid", strconv.Itoa(os.Getpid())).WithField("version", version).Info("supervisor is up")
	err = s.Serve(ctx, func() {
		if ready != nil {
			fmt.Fprintln(ready, "ready")
			ready.Close()
		}
	})
	if s.Idle() {
		group.Leave()
	}
	return err
}
