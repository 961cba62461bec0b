package registry

import (
	"cmp"
	"fmt"
	"io"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/image"
	"github.com/spf13/cobra"
)

// NewExplain is `nodectl registry explain`.
func NewExplain(cli *command.CLI) *cobra.Command {
	return &cobra.Command{
		Use:   "explain NAME[:TAG|@DIGEST]",
		Short: "Show what a pull would ask, where, as whom, and what is answered",
		Args:  command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Registries()
			if err != nil {
				return err
			}
			resp, err := client.Explain(cmd.Context(), &nodev1.ExplainRequest{Ref: args[0], Auth: image.Credentials(cli, args[0])})
			if err != nil {
				return err
			}
			return explain(cli.Out, resp)
		},
	}
}

// explain writes the answer, and fails when no host has the image.
func explain(out io.Writer, resp *nodev1.ExplainResponse) error {
	fmt.Fprintf(out, "Image: %s\n", resp.GetRef())
	if len(resp.GetFiles()) > 0 {
		fmt.Fprintln(out, "Configuration:")
	}
	for _, f := range resp.GetFiles() {
		fmt.Fprintf(out, "  %s: %s\n", f.GetPath(), f.GetState())
	}
	found := false
	for i, a := range resp.GetAttempts() {
		fmt.Fprintf(out, "%d. %s: %s\n", i+1, a.GetRole(), a.GetUrl())
		if a.GetConfig() != "" {
			fmt.Fprintf(out, "   Configured in: %s\n", a.GetConfig())
		}
		fmt.Fprintf(out, "   TLS: %s\n   Credentials: %s\n   Proxy: %s\n", a.GetTls(), cmp.Or(a.GetCredentials(), "none"), cmp.Or(a.GetProxy(), "none"))
		fmt.Fprintf(out, "   Answer: %s (%d ms)\n", a.GetAnswer(), a.GetMillis())
		if a.GetDigest() != "" {
			fmt.Fprintf(out, "   Digest: %s\n", a.GetDigest())
		}
		if a.GetWouldServe() {
			fmt.Fprintln(out, "   A pull takes it from here.")
			found = true
		}
	}
	if !found {
		return fmt.Errorf("no host would serve %s", resp.GetRef())
	}
	return nil
}
