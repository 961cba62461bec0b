package image

import (
	"fmt"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
)

// NewRemove is `nodectl rmi`, and with the name "rm" `nodectl image rm`.
func NewRemove(cli *command.CLI, name string) *cobra.Command {
	var force, noPrune bool
	var platform string
	cmd := &cobra.Command{
		Use:   name + " [OPTIONS] IMAGE [IMAGE...]",
		Short: "Remove one or more images",
		Args:  command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Images()
			if err != nil {
				return err
			}
			return cli.Each(args, func(name string) error {
				resp, err := client.Remove(cmd.Context(), &nodev1.RemoveImageRequest{Image: name, Force: force, NoPrune: noPrune, Platform: platform})
				if force && command.Code(err) == codes.NotFound {
					// As docker: it is said, and no failure.
					cli.Report(err)
					return nil
				}
				for _, ref := range resp.GetUntagged() {
					fmt.Fprintln(cli.Out, "Untagged: "+Familiar(ref))
				}
				for _, id := range resp.GetDeleted() {
					fmt.Fprintln(cli.Out, "Deleted: "+id)
				}
				return err
			}, nil)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force removal of the image")
	cmd.Flags().BoolVar(&noPrune, "no-prune", false, "Do not delete untagged parents")
	cmd.Flags().StringVar(&platform, "platform", "", `Remove the image only if it is for the given platform. Formatted as "os[/arch[/variant]]"`)
	return cmd
}
