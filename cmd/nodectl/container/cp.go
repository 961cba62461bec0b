package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
)

// copyFlags are the flags of cp.
type copyFlags struct {
	archive, follow, quiet bool
}

// NewCopy is `nodectl cp`.
func NewCopy(cli *command.CLI) *cobra.Command {
	var flags copyFlags
	cmd := &cobra.Command{
		Use:   "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tnodectl cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		Short: "Copy files/folders between a container and the local filesystem",
		Long: "Copy files/folders between a container and the local filesystem\n\n" +
			"Use '-' as the source to read a tar archive from stdin and extract it to a\n" +
			"directory destination in a container. Use '-' as the destination to stream a\n" +
			"tar archive of a container source to stdout.",
		Args: command.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return flags.run(cmd.Context(), cli, args[0], args[1])
		},
	}
	cmd.Flags().BoolVarP(&flags.archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	cmd.Flags().BoolVarP(&flags.follow, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	cmd.Flags().BoolVarP(&flags.quiet, "quiet", "q", false, "Suppress progress output during copy")
	return cmd
}

func (f *copyFlags) run(ctx context.Context, cli *command.CLI, source, target string) error {
	from, fromPath := splitCopyArg(source)
	to, toPath := splitCopyArg(target)
	switch {
	case fromPath == "":
		return errors.New("source can not be empty")
	case toPath == "":
		return errors.New("destination can not be empty")
	case from != "" && to != "":
		return errors.New("copying between containers is not supported")
	case from == "" && to == "":
		return errors.New("must specify at least one container source")
	}
	client, err := cli.Containers()
	if err != nil {
		return err
	}
	c := &copying{flags: f, cli: cli, client: client}
	if from != "" {
		c.container = from
		err = c.out(ctx, fromPath, toPath)
	} else {
		c.container = to
		err = c.in(ctx, fromPath, toPath)
	}
	if err == nil && !f.quiet && target != "-" && source != "-" {
		fmt.Fprintf(cli.Err, "Successfully copied %s to %s\n", format.Size(c.size), target)
	}
	return err
}

// splitCopyArg splits CONTAINER:PATH; a path that is absolute or begins with
// a dot is a local one, whatever colons are in it.
func splitCopyArg(arg string) (container, name string) {
	if filepath.IsAbs(arg) {
		return "", arg
	}
	container, name, ok := strings.Cut(arg, ":")
	if !ok || strings.HasPrefix(container, ".") {
		return "", arg
	}
	return container, name
}

// copying is one cp.
type copying struct {
	flags     *copyFlags
	cli       *command.CLI
	client    nodev1.ContainersClient
	container string
	// size is how many bytes of a tar stream were copied.
	size int64
}

// end is a path that something is copied to.
type end struct {
	path string
	// exists says that there is something, isDir that it is a folder.
	exists, isDir bool
}

// contents says that what is in a folder is meant, and not the folder.
func contents(name string) bool {
	return name == "." || strings.HasSuffix(name, "/.")
}

// into decides which folder a copy goes to, and what it is called there; "."
// is a folder's contents.
func into(source string, sourceDir bool, to end, base, dir func(string) string) (folder, name string, err error) {
	switch {
	case to.isDir && sourceDir && contents(source):
		return to.path, ".", nil
	case to.isDir:
		return to.path, base(source), nil
	case to.exists && sourceDir:
		return "", "", errors.New("cannot copy directory")
	case to.exists && strings.HasSuffix(to.path, "/"):
		return "", "", errors.New("not a directory")
	case !to.exists && !sourceDir && strings.HasSuffix(to.path, "/"):
		return "", "", errors.New("no such directory")
	}
	clean := strings.TrimRight(strings.TrimSuffix(to.path, "/."), "/")
	return dir(clean), base(clean), nil
}

// stat tells of a path in the container; found is false where there is none.
func (c *copying) stat(ctx context.Context, name string, follow bool) (stat *nodev1.PathStat, found bool, err error) {
	stream, err := c.client.CopyFrom(ctx, &nodev1.CopyFromRequest{Container: c.container, Path: name, Follow: follow, StatOnly: true})
	if err != nil {
		return nil, false, err
	}
	m, err := stream.Recv()
	if command.Code(err) == codes.NotFound && strings.HasPrefix(c.cli.Text(err), "Could not find the file") {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return m.GetStat(), true, nil
}

// isFolder says whether a path in the container is a folder.
func isFolder(stat *nodev1.PathStat) bool { return fs.FileMode(stat.GetMode()).IsDir() }

// destination looks at the path in the container that is copied to. A link to
// a file is where it leads.
func (c *copying) destination(ctx context.Context, name string) (end, error) {
	stat, found, err := c.stat(ctx, name, false)
	if err == nil && found && stat.GetTarget() != "" {
		target := stat.GetTarget()
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(path.Clean("/"+name)), target)
		}
		name = target
		stat, found, err = c.stat(ctx, name, true)
	}
	return end{path: name, exists: found, isDir: found && isFolder(stat)}, err
}
