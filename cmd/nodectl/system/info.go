package system

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/go-units"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
)

// info is what info prints; templates use its names, docker's where it has one.
type info struct {
	Containers        int64
	ContainersRunning int64
	ContainersPaused  int64
	ContainersStopped int64
	Pods              int64
	Images            int64
	Driver            string
	// DockerRootDir is NodeRootDir under docker's name.
	DockerRootDir     string
	NodeRootDir       string
	NodeStateDir      string
	ImageBytes        uint64
	ImageFilesystem   string
	LoggingDriver     string
	CgroupDriver      string
	CgroupVersion     string
	NetworkReady      bool
	NetworkProblem    string
	SupervisorPid     int64
	SupervisorVersion string
	SupervisorProblem string
	RuncVersion       string
	DefaultRuntime    string
	Runtimes          map[string]struct{}
	SecurityOptions   []string
	Swarm             swarm
	// LiveRestoreEnabled says that containers outlive the agent.
	LiveRestoreEnabled bool
	Features           []string
	KernelVersion      string
	OperatingSystem    string
	OSType             string
	Architecture       string
	NCPU               int64
	MemTotal           int64
	Name               string
	ServerVersion      string
	Warnings           []string
	ClientInfo         clientVersion
	SystemTime         string
	Plugins            plugins
	// ServerErrors says why there is nothing of the server.
	ServerErrors []string `json:",omitempty"`
}

// plugins are the drivers that there are, in docker's names.
type plugins struct {
	Volume, Network, Log []string
}

// swarm is what docker tells of its cluster; here there is none.
type swarm struct {
	LocalNodeState string
}

// NewInfo is `nodectl info`.
func NewInfo(cli *command.CLI, build Build) *cobra.Command {
	var source string
	cmd := &cobra.Command{
		Use:   "info [OPTIONS]",
		Short: "Display system-wide information",
		Args:  command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := cli.System()
			if err != nil {
				return err
			}
			resp, failure := client.Info(cmd.Context(), &nodev1.InfoRequest{})
			i := infoOf(resp)
			if failure != nil {
				i = info{ServerErrors: []string{cli.Text(failure)}}
			}
			i.ClientInfo = clientVersion{Version: build.Version, GitCommit: build.GitCommit, Host: cli.Host}
			if source != "" {
				return errors.Join(format.Value(cli.Out, source, i), failure)
			}
			fmt.Fprintf(cli.Out, "Client: nodectl\n Version: %s\n Host: %s\n\nServer:\n", i.ClientInfo.Version, i.ClientInfo.Host)
			if failure != nil {
				return failure
			}
			printInfo(cli.Out, i)
			for _, warning := range i.Warnings {
				fmt.Fprintln(cli.Err, "WARNING: "+warning)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&source, "format", "f", "", `Format output: "json" or a Go template`)
	return cmd
}

func infoOf(r *nodev1.InfoResponse) info {
	return info{
		Containers: r.GetContainers(), ContainersRunning: r.GetRunning(), ContainersPaused: r.GetPaused(),
		ContainersStopped: r.GetStopped(), Pods: r.GetPods(), Images: r.GetImages(),
		Driver: r.GetSnapshotter(), DockerRootDir: r.GetRootDir(), NodeRootDir: r.GetRootDir(), NodeStateDir: r.GetStateDir(),
		ImageBytes: r.GetImageBytes(), ImageFilesystem: r.GetImageFilesystem(),
		CgroupDriver: r.GetCgroupDriver(), CgroupVersion: cgroupVersion(r.GetCgroupVersion()),
		LoggingDriver: "json-file", DefaultRuntime: "runc", Runtimes: map[string]struct{}{"runc": {}}, Swarm: swarm{"inactive"},
		LiveRestoreEnabled: true, SecurityOptions: securityOptions(r.GetFeatures()),
		NetworkReady: r.GetNetworkReady(), NetworkProblem: r.GetNetworkProblem(),
		SupervisorPid: r.GetSupervisorPid(), SupervisorVersion: r.GetVersion().GetSupervisorVersion(),
		SupervisorProblem: r.GetSupervisorProblem(), RuncVersion: r.GetVersion().GetRuncVersion(), Features: r.GetFeatures(),
		KernelVersion: r.GetVersion().GetKernelVersion(), OperatingSystem: r.GetOperatingSystem(),
		OSType: r.GetVersion().GetOs(), Architecture: machine(r.GetVersion().GetArch()), NCPU: r.GetCpus(), MemTotal: r.GetMemoryBytes(),
		Name: r.GetHostname(), ServerVersion: r.GetVersion().GetVersion(), Warnings: r.GetWarnings(),
		SystemTime: time.Now().Format(time.RFC3339Nano),
		Plugins: plugins{
			Volume: []string{"local"}, Network: []string{"bridge", "host", "ipvlan", "macvlan", "null"}, Log: []string{"json-file", "local", "none"},
		},
	}
}

// machine is the kernel's name of an architecture, which docker's info has, by Go's.
func machine(arch string) string {
	switch arch {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return arch
}

// securityOptions are docker's words for those features that keep containers in.
func securityOptions(features []string) []string {
	out := []string{}
	for _, feature := range features {
		switch feature {
		case "seccomp":
			out = append(out, "name=seccomp,profile=builtin")
		case "apparmor", "selinux":
			out = append(out, "name="+feature)
		}
	}
	return out
}

// cgroupVersion is docker's name of how cgroups are mounted: hybrid, with controllers on v1, is 1.
func cgroupVersion(mode string) string {
	if mode == "v2" {
		return "2"
	}
	return "1"
}

func printInfo(out io.Writer, i info) {
	line := func(depth int, name string, value any) {
		fmt.Fprintf(out, "%s%s: %v\n", strings.Repeat(" ", depth), name, value)
	}
	line(1, "Containers", i.Containers)
	line(2, "Running", i.ContainersRunning)
	line(2, "Paused", i.ContainersPaused)
	line(2, "Stopped", i.ContainersStopped)
	line(1, "Pods", i.Pods)
	line(1, "Images", i.Images)
	line(1, "Server Version", i.ServerVersion)
	line(1, "Storage Driver", i.Driver)
	line(2, "Images take", format.Size(int64(i.ImageBytes)))
	line(2, "Backing path", i.ImageFilesystem)
	line(1, "Logging Driver", i.LoggingDriver)
	line(1, "Cgroup Driver", i.CgroupDriver)
	line(1, "Cgroup Version", i.CgroupVersion)
	line(1, "Network", ready(i.NetworkReady, i.NetworkProblem))
	if i.SupervisorProblem != "" {
		line(1, "Supervisor", "does not answer: "+i.SupervisorProblem)
	} else {
		line(1, "Supervisor", fmt.Sprintf("%s (PID %d)", i.SupervisorVersion, i.SupervisorPid))
	}
	line(1, "Default Runtime", i.DefaultRuntime)
	line(1, "libcontainer", i.RuncVersion)
	line(1, "Features", strings.Join(i.Features, " "))
	line(1, "Kernel Version", i.KernelVersion)
	line(1, "Operating System", i.OperatingSystem)
	line(1, "OSType", i.OSType)
	line(1, "Architecture", i.Architecture)
	line(1, "CPUs", i.NCPU)
	line(1, "Total Memory", units.BytesSize(float64(i.MemTotal)))
	line(1, "Name", i.Name)
	line(1, "Root Dir", i.NodeRootDir)
	line(1, "State Dir", i.NodeStateDir)
}

// ready is a state in words.
func ready(ok bool, problem string) string {
	if ok {
		return "ready"
	}
	return "not ready: " + problem
}
