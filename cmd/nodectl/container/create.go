package container

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/image"
	"github.com/nodeagent/nodeagent/cmd/nodectl/interrupt"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
)

// NewCreate is `nodectl create`: create a container and do not start it.
func NewCreate(cli *command.CLI) *cobra.Command {
	var flags createFlags
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create a new container",
		Args:  command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := createContainer(cmd.Context(), cli, &flags, createArgs{image: args[0], command: args[1:]})
			if err != nil {
				return err
			}
			fmt.Fprintln(cli.Out, id)
			return nil
		},
	}
	flags.add(cmd)
	return cmd
}

// createArgs are the arguments of create and run.
type createArgs struct {
	image    string
	command  []string
	detached bool
}

// createContainer creates a container, pulls its image as --pull says, and
// writes its ID to --cidfile.
func createContainer(ctx context.Context, cli *command.CLI, flags *createFlags, args createArgs) (id string, err error) {
	req, err := flags.request(args.image, args.command, args.detached)
	if err != nil {
		return "", command.EngineError(flags.cmd, command.ValueError(flags.cmd, err))
	}
	warnBefore(cli, req.GetSpec())
	cid, err := openCIDFile(flags.cidfile)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, cid.finish(id)) }()
	if flags.pull == "always" && !flags.rootfs {
		if err := pullImage(ctx, cli, flags, args.image); err != nil {
			return "", err
		}
	}
	client, err := cli.Containers()
	if err != nil {
		return "", err
	}
	resp, err := client.Create(ctx, req)
	// NotFound with the image's name is what pulling can mend.
	if command.Code(err) == codes.NotFound && strings.HasPrefix(cli.Text(err), "No such image: ") && flags.pull == "missing" {
		fmt.Fprintf(cli.Err, "Unable to find image '%s' locally\n", image.Familiar(args.image))
		if err := pullImage(ctx, cli, flags, args.image); err != nil {
			return "", err
		}
		resp, err = client.Create(ctx, req)
	}
	if err != nil {
		return "", err
	}
	for _, warning := range resp.GetWarnings() {
		fmt.Fprintln(cli.Err, "WARNING: "+warning)
	}
	return resp.GetId(), nil
}

// warnBefore tells of what is likely to go wrong before the agent is asked.
func warnBefore(cli *command.CLI, spec *nodev1.ContainerSpec) {
	if res := spec.GetResources(); res.GetOomKillDisable() && res.GetMemoryBytes() == 0 {
		fmt.Fprintln(cli.Err, "WARNING: Disabling the OOM killer on containers without setting a '-m/--memory' limit may be dangerous.")
	}
	for _, server := range spec.GetNetwork().GetDns() {
		if addr, err := netip.ParseAddr(server); err == nil && addr.IsLoopback() {
			fmt.Fprintf(cli.Err, "WARNING: Localhost DNS setting (--dns=%s) may fail in containers.\n", server)
			return
		}
	}
}

// pullImage pulls; what it tells goes to stderr.
func pullImage(ctx context.Context, cli *command.CLI, flags *createFlags, ref string) error {
	o := image.PullOptions{Ref: ref, Platform: flags.platform, Out: cli.Err, Quiet: flags.quiet}
	_, err := image.Pull(ctx, cli, o)
	return err
}

// startCode tells from the words of the error, which are the kernel's.
func startCode(text string) int {
	for _, s := range []string{"executable file not found", "no such file or directory"} {
		if strings.Contains(text, s) {
			return command.ExitNotFound
		}
	}
	for _, s := range []string{"permission denied", "is a directory", "not a directory", "exec format error"} {
		if strings.Contains(text, s) {
			return command.ExitNotInvocable
		}
	}
	return command.ExitEngine
}

// cidFile is the file of --cidfile; nil is none.
type cidFile struct {
	file *os.File
	// keep ends that a signal removes it.
	keep func()
}

// openCIDFile makes the file, which must not be there.
func openCIDFile(path string) (*cidFile, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", path)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to create the container ID file: %w", err)
	}
	return &cidFile{f, interrupt.Undo(func() { _ = os.Remove(path) })}, nil
}

// finish writes the ID, or removes the file when there is none.
func (c *cidFile) finish(id string) error {
	if c == nil {
		return nil
	}
	defer c.keep()
	if id == "" {
		return errors.Join(c.file.Close(), os.Remove(c.file.Name()))
	}
	_, err := c.file.WriteString(id)
	return errors.Join(err, c.file.Close())
}
