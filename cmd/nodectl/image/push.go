package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/distribution/reference"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// pushOptions say what is pushed.
type pushOptions struct {
	all, quiet bool
	platform   string
	// client, out and auth are of one run.
	client nodev1.ImagesClient
	out    io.Writer
	auth   *nodev1.Auth
}

// NewPush is `nodectl push`.
func NewPush(cli *command.CLI) *cobra.Command {
	var o pushOptions
	cmd := &cobra.Command{
		Use:   "push [OPTIONS] NAME[:TAG]",
		Short: "Upload an image to a registry",
		Args:  command.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), cli, args[0]) },
	}
	cmd.Flags().BoolVarP(&o.all, "all-tags", "a", false, "Push all tags of an image to the repository")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "Suppress verbose output")
	cmd.Flags().StringVar(&o.platform, "platform", "", `Push a platform-specific manifest: "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	return cmd
}

func (o *pushOptions) run(ctx context.Context, cli *command.CLI, name string) error {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return err
	}
	if o.client, err = cli.Images(); err != nil {
		return err
	}
	refs := []reference.Named{reference.TagNameOnly(ref)}
	switch {
	case o.all && !reference.IsNameOnly(ref):
		return errors.New("tag can't be used with --all-tags/-a")
	case o.all:
		if refs, err = localTags(ctx, o.client, ref); err != nil {
			return err
		}
	case reference.IsNameOnly(ref) && !o.quiet:
		fmt.Fprintln(cli.Out, "Using default tag: latest")
	}
	o.out, o.auth = cli.Out, credentials(cli, reference.Domain(ref))
	if o.quiet {
		o.out = io.Discard
	}
	for i, one := range refs {
		title := ""
		if i == 0 {
			title = fmt.Sprintf("The push refers to repository [%s]", ref.Name())
		}
		if err := o.push(ctx, title, one); err != nil {
			return err
		}
	}
	if o.quiet {
		if !o.all {
			ref = refs[0]
		}
		fmt.Fprintln(cli.Out, ref.String())
	}
	return nil
}

// push pushes one tag.
func (o *pushOptions) push(ctx context.Context, title string, ref reference.Named) error {
	stream, err := o.client.Push(ctx, &nodev1.PushRequest{Ref: ref.String(), Auth: o.auth, Platform: o.platform})
	if err != nil {
		return err
	}
	var result *nodev1.PushResult
	err = newProgress(o.out, title).follow(func() (*nodev1.PullProgress, bool, error) {
		m, err := stream.Recv()
		result = m.GetResult()
		return m.GetProgress(), result != nil, err
	})
	if err != nil {
		return err
	}
	tag := ""
	if tagged, ok := ref.(reference.Tagged); ok {
		tag = tagged.Tag()
	}
	fmt.Fprintf(o.out, "%s: digest: %s size: %d\n", tag, result.GetDigest(), result.GetSize())
	return nil
}

// localTags are all tags of a repository, in order.
func localTags(ctx context.Context, client nodev1.ImagesClient, repository reference.Named) ([]reference.Named, error) {
	resp, err := client.List(ctx, &nodev1.ListImagesRequest{})
	if err != nil {
		return nil, err
	}
	var refs []reference.Named
	for _, img := range resp.GetImages() {
		for _, text := range img.GetTags() {
			if ref, err := reference.ParseNormalizedNamed(text); err == nil && ref.Name() == repository.Name() {
				refs = append(refs, ref)
			}
		}
	}
	if len(refs) == 0 {
		return nil, fmt.Errorf("An image does not exist locally with the tag: %s", reference.FamiliarName(repository))
	}
	slices.SortFunc(refs, func(a, b reference.Named) int { return strings.Compare(a.String(), b.String()) })
	return refs, nil
}
