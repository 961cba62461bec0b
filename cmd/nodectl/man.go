package main

import (
	"os"

	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newMan is `nodectl man`.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "Write the manual pages of all commands, for man(1), into a folder",
		Args:   command.ExactArgs(1),
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			return doc.GenManTree(root, &doc.GenManHeader{Title: "NODECTL", Section: "1", Source: "nodeagent", Manual: "nodectl"}, args[0])
		},
	}
}
