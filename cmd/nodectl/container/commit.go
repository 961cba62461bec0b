package container

import (
	"errors"
	"fmt"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewCommit is `nodectl commit`.
func NewCommit(cli *command.CLI) *cobra.Command {
	var req nodev1.CommitRequest
	pause := true
	cmd := &cobra.Command{
		Use:   "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
		Short: "Create a new image from a container's changes",
		Args:  command.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("pause") {
				if cmd.Flags().Changed("no-pause") {
					return errors.New("conflicting options: --no-pause and --pause cannot be used together")
				}
				req.NoPause = !pause
			}
			client, err := cli.Containers()
			if err != nil {
				return err
			}
			req.Container = args[0]
			if len(args) > 1 {
				req.Ref = args[1]
			}
			resp, err := client.Commit(cmd.Context(), &req)
			if err != nil {
				return err
			}
			fmt.Fprintln(cli.Out, resp.GetId())
			return nil
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVarP(&req.Author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	f.StringArrayVarP(&req.Changes, "change", "c", nil, "Apply Dockerfile instruction to the created image")
	f.StringVarP(&req.Comment, "message", "m", "", "Commit message")
	f.BoolVarP(&pause, "pause", "p", true, "Pause container during commit")
	f.BoolVar(&req.NoPause, "no-pause", false, "Disable pausing container during commit")
	return cmd
}
