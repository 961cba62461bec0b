// Package image holds the commands of nodectl that are about images, one
// file each.
package image

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/distribution/reference"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewPull is `nodectl pull`.
func NewPull(cli *command.CLI) *cobra.Command {
	var (
		platform   string
		quiet, all bool
	)
	cmd := &cobra.Command{
		Use:   "pull [OPTIONS] NAME[:TAG|@DIGEST]",
		Short: "Download an image from a registry",
		Args:  command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := PullOptions{Ref: args[0], Platform: platform, Out: cli.Out, Quiet: quiet}
			if all {
				return pullAll(cmd.Context(), cli, o)
			}
			if named, err := reference.ParseNormalizedNamed(args[0]); err == nil && reference.IsNameOnly(named) && !quiet {
				fmt.Fprintln(cli.Out, "Using default tag: latest")
			}
			name, err := Pull(cmd.Context(), cli, o)
			if err == nil {
				fmt.Fprintln(cli.Out, name)
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&all, "all-tags", "a", false, "Download all tagged images in the repository")
	cmd.Flags().StringVar(&platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	return cmd
}

// PullOptions say what is pulled and where it is told.
type PullOptions struct {
	// Ref is a reference in any form docker takes.
	Ref string
	// Platform such as "linux/arm64"; empty is the node's.
	Platform string
	// Out is told how far the pull is: with bars where it is a terminal.
	Out io.Writer
	// Quiet tells nothing.
	Quiet bool
}

// Pull has the agent fetch an image, with the credentials docker's
// configuration has for its registry. It returns the image's full name.
func Pull(ctx context.Context, cli *command.CLI, o PullOptions) (name string, err error) {
	named, err := reference.ParseDockerRef(o.Ref)
	if err != nil {
		return "", err
	}
	out := o.Out
	if o.Quiet {
		out = io.Discard
	}
	result, err := fetch(ctx, cli, out, named, o.Platform)
	if err != nil {
		return "", err
	}
	printStatus(out, result.GetNew(), reference.FamiliarString(named))
	return named.String(), nil
}

// fetch pulls one reference and tells of it, up to its digest.
func fetch(ctx context.Context, cli *command.CLI, out io.Writer, named reference.Named, platform string) (*nodev1.PullResult, error) {
	client, err := cli.Images()
	if err != nil {
		return nil, err
	}
	stream, err := client.Pull(ctx, &nodev1.PullRequest{
		Ref: named.String(), Platform: platform, Auth: credentials(cli, reference.Domain(named)),
	})
	if err != nil {
		return nil, err
	}
	var result *nodev1.PullResult
	err = newProgress(out, progressTitle(named)).follow(func() (*nodev1.PullProgress, bool, error) {
		m, err := stream.Recv()
		result = m.GetResult()
		return m.GetProgress(), result != nil, err
	})
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "Digest: %s\n", result.GetDigest())
	return result, nil
}

// printStatus is the last line of a pull.
func printStatus(out io.Writer, isNew bool, name string) {
	if isNew {
		fmt.Fprintf(out, "Status: Downloaded newer image for %s\n", name)
		return
	}
	fmt.Fprintf(out, "Status: Image is up to date for %s\n", name)
}

// progressTitle is the first line of a pull.
func progressTitle(named reference.Named) string {
	tag := ""
	switch n := named.(type) {
	case reference.Digested:
		tag = n.Digest().String()
	case reference.Tagged:
		tag = n.Tag()
	}
	return fmt.Sprintf("%s: Pulling from %s", tag, reference.Path(named))
}

// Familiar is a reference in its short form with a tag, or itself when it
// does not parse.
func Familiar(ref string) string {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return ref
	}
	return reference.FamiliarString(named)
}
