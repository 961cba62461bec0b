package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/distribution/reference"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
)

// pullAll pulls every tag of a repository.
func pullAll(ctx context.Context, cli *command.CLI, o PullOptions) error {
	repository, err := reference.ParseNormalizedNamed(o.Ref)
	if err != nil {
		return err
	}
	if !reference.IsNameOnly(repository) {
		return errors.New("tag can't be used with --all-tags/-a")
	}
	registries, err := cli.Registries()
	if err != nil {
		return err
	}
	resp, err := registries.Tags(ctx, &nodev1.TagsRequest{
		Repository: repository.String(), Auth: credentials(cli, reference.Domain(repository)),
	})
	if err != nil {
		return err
	}
	out := o.Out
	if o.Quiet {
		out = io.Discard
	}
	isNew := false
	for _, tag := range resp.GetTags() {
		named, err := reference.WithTag(repository, tag)
		if err != nil {
			return fmt.Errorf("the registry has a tag that is none: %q", tag)
		}
		result, err := fetch(ctx, cli, out, named, o.Platform)
		if err != nil {
			return err
		}
		isNew = isNew || result.GetNew()
	}
	printStatus(out, isNew, reference.FamiliarName(repository))
	fmt.Fprintln(cli.Out, repository.Name())
	return nil
}
