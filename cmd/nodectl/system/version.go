package system

import (
	"fmt"
	"io"
	"runtime"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
)

// Build is how nodectl itself was built; the linker sets it in package main.
type Build struct {
	Version, GitCommit string
}

// versions is what version prints; templates use its names.
type (
	versions struct {
		Client clientVersion
		Server *serverVersion
	}
	clientVersion struct {
		Version   string
		GitCommit string
		GoVersion string
		Os        string
		Arch      string
		Host      string
	}
	serverVersion struct {
		Version       string
		GitCommit     string
		GoVersion     string
		Os            string
		Arch          string
		KernelVersion string
		Supervisor    string
		Runc          string
	}
)

// NewVersion is `nodectl version`.
func NewVersion(cli *command.CLI, build Build) *cobra.Command {
	var source string
	cmd := &cobra.Command{
		Use:   "version [OPTIONS]",
		Short: "Show the nodectl version information",
		Args:  command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions{Client: clientVersion{
				Version: build.Version, GitCommit: build.GitCommit, GoVersion: runtime.Version(),
				Os: runtime.GOOS, Arch: runtime.GOARCH, Host: cli.Host,
			}}
			client, err := cli.System()
			if err != nil {
				return err
			}
			resp, failure := client.Version(cmd.Context(), &nodev1.VersionRequest{})
			if failure == nil {
				v.Server = serverVersionOf(resp)
			}
			if source != "" {
				err = format.Value(cli.Out, source, v)
			} else {
				printVersions(cli.Out, v)
			}
			// The client is told of even where nobody answers; a template
			// that wants the server's version fails for that reason.
			if failure != nil {
				return failure
			}
			return err
		},
	}
	cmd.Flags().StringVarP(&source, "format", "f", "", `Format output: "json" or a Go template`)
	return cmd
}

func serverVersionOf(r *nodev1.VersionResponse) *serverVersion {
	return &serverVersion{
		Version: r.GetVersion(), GitCommit: r.GetGitCommit(), GoVersion: r.GetGoVersion(), Os: r.GetOs(), Arch: r.GetArch(),
		KernelVersion: r.GetKernelVersion(), Supervisor: r.GetSupervisorVersion(), Runc: r.GetRuncVersion(),
	}
}

func printVersions(out io.Writer, v versions) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(out, " %-18s%s\n", name+":", value)
		}
	}
	fmt.Fprintln(out, "Client: nodectl")
	line("Version", v.Client.Version)
	line("Go version", v.Client.GoVersion)
	line("Git commit", v.Client.GitCommit)
	line("OS/Arch", v.Client.Os+"/"+v.Client.Arch)
	line("Host", v.Client.Host)
	if v.Server == nil {
		return
	}
	fmt.Fprintln(out, "\nServer: nodeagent")
	line("Version", v.Server.Version)
	line("Go version", v.Server.GoVersion)
	line("Git commit", v.Server.GitCommit)
	line("OS/Arch", v.Server.Os+"/"+v.Server.Arch)
	line("Kernel", v.Server.KernelVersion)
	line("Supervisor", v.Server.Supervisor)
	line("libcontainer", v.Server.Runc)
}
