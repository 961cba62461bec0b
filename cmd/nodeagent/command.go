package main

import (
	"github.com/spf13/cobra"
)

// newRootCommand is the daemon itself, with its subcommands below it.
func newRootCommand() *cobra.Command {
	var flags flagValues
	cmd := &cobra.Command{
		Use:           "nodeagent",
		Short:         "A Kubernetes node agent: CRI, images and network of one node",
		Version:       semanticVersion(),
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.load(cmd.Flags())
			if err != nil {
				return usageError{err}
			}
			return serve(cmd.Context(), cfg, func() (Config, error) { return flags.load(cmd.Flags()) })
		},
	}
	flags.register(cmd.PersistentFlags())
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	cmd.AddCommand(newConfigCommand(&flags), newCleanupCommand(&flags), newDemoCommand(), newDemoWebCommand())
	return cmd
}
