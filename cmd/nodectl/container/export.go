package container

import (
	"io"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewExport is `nodectl export`.
func NewExport(cli *command.CLI) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "export [OPTIONS] CONTAINER",
		Short: "Export a container's filesystem as a tar archive",
		Args:  command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Containers()
			if err != nil {
				return err
			}
			return cli.Output(output, "export container", func(w io.Writer) error {
				stream, err := client.Export(cmd.Context(), &nodev1.ExportRequest{Container: args[0]})
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
	return cmd
}
