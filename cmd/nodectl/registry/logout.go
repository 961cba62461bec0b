package registry

import (
	"fmt"

	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewLogout is `nodectl logout`.
func NewLogout(cli *command.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "logout [SERVER]",
		Short: "Log out from a registry",
		Args:  command.RangeArgs(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := openStore()
			if err != nil {
				return err
			}
			key := serverKey(args)
			keys := []string{key}
			if key != command.DockerHub {
				// As they may have been stored long ago.
				keys = append(keys, "http://"+key, "https://"+key)
				if len(args) == 1 && args[0] != key {
					keys = append(keys, args[0])
				}
			}
			fmt.Fprintln(cli.Out, "Removing login credentials for", key)
			if err := s.erase(keys); err != nil {
				fmt.Fprintln(cli.Err, "WARNING: could not erase credentials:")
				fmt.Fprintf(cli.Err, "%s: %s\n", key, err)
			}
			return nil
		},
	}
}
