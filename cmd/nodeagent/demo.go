package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/nodeagent/nodeagent/internal/demo"
)

// newDemoCommand is "nodeagent demo", which needs nothing but root.
func newDemoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Run a pod on throwaway folders, show it, and take everything down again",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return fmt.Errorf("demo: must be run as root")
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("demo: %w", err)
			}
			return demo.Run(cmd.Context(), demo.Options{
				Agent:      self,
				Supervisor: filepath.Join(filepath.Dir(self), "nodesupervisor"),
				Out:        cmd.OutOrStdout(),
			})
		},
	}
}

// newDemoWebCommand is what runs inside the demo's pod.
func newDemoWebCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "demo-web",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo.Serve(cmd.Context(), cmd.OutOrStdout())
		},
	}
}
