package image

import (
	"io"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewSave is `nodectl save`.
func NewSave(cli *command.CLI) *cobra.Command {
	var output, platform string
	cmd := &cobra.Command{
		Use:   "save [OPTIONS] IMAGE [IMAGE...]",
		Short: "Save one or more images to a tar archive (streamed to STDOUT by default)",
		Args:  command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Images()
			if err != nil {
				return err
			}
			return cli.Output(output, "save image", func(w io.Writer) error {
				stream, err := client.Save(cmd.Context(), &nodev1.SaveRequest{Images: args, Platform: strings.TrimSpace(platform)})
				if err != nil {
					return err
				}
				return command.CopyChunks(w, func() ([]byte, error) {
					m, err := stream.Recv()
					return m.GetData(), err
				})
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	cmd.Flags().StringVar(&platform, "platform", "", `Save only the given platform. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	return cmd
}
