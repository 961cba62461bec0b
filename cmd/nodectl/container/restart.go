package container

import (
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewRestart is `nodectl restart`.
func NewRestart(cli *command.CLI) *cobra.Command {
	var timeout stopTimeout
	cmd := &cobra.Command{
		Use:   "restart [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Restart one or more containers",
		Args:  command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Containers()
			if err != nil {
				return err
			}
			return cli.Each(args, func(name string) error {
				_, err := client.Restart(cmd.Context(), &nodev1.RestartRequest{
					Container: name, Timeout: timeout.value(), Signal: timeout.signal,
				})
				return err
			}, cli.PrintArg)
		},
	}
	timeout.add(cmd)
	return cmd
}
