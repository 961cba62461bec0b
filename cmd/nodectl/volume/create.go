// Package volume holds the commands of nodectl that are about volumes, one
// file each.
package volume

import (
	"errors"
	"fmt"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewCreate is `nodectl volume create`.
func NewCreate(cli *command.CLI) *cobra.Command {
	var (
		req             nodev1.CreateVolumeRequest
		labels, options []string
	)
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] [VOLUME]",
		Short: "Create a volume",
		Args:  command.RangeArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if req.Name != "" {
					return errors.New("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
				}
				req.Name = args[0]
			}
			req.Labels, req.Options = command.Pairs(labels), command.Pairs(options)
			client, err := cli.Volumes()
			if err != nil {
				return err
			}
			v, err := client.Create(cmd.Context(), &req)
			if err != nil {
				return err
			}
			fmt.Fprintln(cli.Out, v.GetName())
			return nil
		},
	}
	cmd.Flags().StringVarP(&req.Driver, "driver", "d", "local", "Specify volume driver name")
	cmd.Flags().StringVar(&req.Name, "name", "", "Specify volume name")
	_ = cmd.Flags().MarkHidden("name") // fails for an unknown flag only
	command.AddLabels(cmd.Flags(), &labels, "", "Set metadata for a volume")
	cmd.Flags().StringArrayVarP(&options, "opt", "o", nil, "Set driver specific options")
	return cmd
}
