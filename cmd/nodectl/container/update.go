package container

import (
	"errors"
	"fmt"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewUpdate is `nodectl update`.
func NewUpdate(cli *command.CLI) *cobra.Command {
	var (
		limits  limitFlags
		restart string
	)
	cmd := &cobra.Command{
		Use:   "update [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Update configuration of one or more containers",
		Args:  command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().NFlag() == 0 {
				return errors.New("you must provide one or more flags when using this command")
			}
			req := &nodev1.UpdateRequest{}
			var err error
			if req.Resources, err = limits.resources(); err != nil {
				return command.ValueError(cmd, err)
			}
			if cmd.Flags().Changed("restart") {
				if req.Restart, err = parseRestart(restart); err != nil {
					return err
				}
				if req.Restart == nil {
					req.Restart = &nodev1.RestartPolicy{Name: "no"}
				}
			}
			client, err := cli.Containers()
			if err != nil {
				return err
			}
			return cli.Each(args, func(name string) error {
				req.Container = name
				resp, err := client.Update(cmd.Context(), req)
				for _, warning := range resp.GetWarnings() {
					fmt.Fprintln(cli.Out, warning)
				}
				return err
			}, cli.PrintArg)
		},
	}
	limits.add(cmd.Flags())
	cmd.Flags().StringVar(&restart, "restart", "", "Restart policy to apply when a container exits")
	return cmd
}
