package image

import (
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewTag is `nodectl tag`.
func NewTag(cli *command.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
		Short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
		Args:  command.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Images()
			if err != nil {
				return err
			}
			_, err = client.Tag(cmd.Context(), &nodev1.TagImageRequest{Source: args[0], Target: args[1]})
			return err
		},
	}
}
