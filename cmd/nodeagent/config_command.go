package main

import (
	"fmt"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"
)

// newConfigCommand is "nodeagent config default | check | dump".
func newConfigCommand(flags *flagValues) *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Show or check the configuration",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())}
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "default", Short: "Print the configuration that holds where nothing is said", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return printConfig(cmd, defaultConfig()) },
		},
		&cobra.Command{
			Use: "check", Short: "Read the configuration and say what is wrong with it", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				if _, err := flags.load(cmd.Flags()); err != nil {
					return usageError{err}
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "The configuration is good.")
				return err
			},
		},
		newDumpCommand(flags),
	)
	return cmd
}

// newDumpCommand is "nodeagent config dump".
func newDumpCommand(flags *flagValues) *cobra.Command {
	var origin bool
	cmd := &cobra.Command{
		Use: "dump", Aliases: []string{"show"}, Short: "Print the configuration that would hold with these flags", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.load(cmd.Flags())
			if err != nil {
				return usageError{err}
			}
			if !origin {
				return printConfig(cmd, cfg)
			}
			text, err := flags.withOrigins(cmd.Flags(), cfg)
			if err == nil {
				_, err = cmd.OutOrStdout().Write(text)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&origin, "origin", false, "say beside each key where its value comes from: the default, the file or a flag")
	return cmd
}

func printConfig(cmd *cobra.Command, cfg Config) error {
	out, err := toml.Marshal(cfg)
	if err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	_, err = cmd.OutOrStdout().Write(out)
	return err
}
