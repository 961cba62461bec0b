// Package store holds the commands of nodectl that are about what the agent
// has on the disk, one file each.
package store

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/nodeagent/nodeagent/cmd/nodectl/terminal"
)

// NewVerify is `nodectl store verify`.
func NewVerify(cli *command.CLI) *cobra.Command {
	var repair, quiet bool
	cmd := &cobra.Command{
		Use:   "verify [OPTIONS]",
		Short: "Read all images on the disk, and say what is damaged",
		Long: `Read all blobs and layers of images, and say what differs from its digest or
checksum. Images may be used meanwhile. The exit code is 1 when something is
wrong. With --repair what is bad, and nothing else, is fetched again from the
registry that it came from, with the credentials that this node has for it.`,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := cli.Store()
			if err != nil {
				return err
			}
			stream, err := client.Verify(cmd.Context(), &nodev1.VerifyStoreRequest{Repair: repair})
			if err != nil {
				return err
			}
			return (&verification{cli: cli, quiet: quiet}).follow(stream)
		},
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "Fetch anew what is damaged")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only show what is wrong")
	return cmd
}

// verification is one call of verify.
type verification struct {
	cli   *command.CLI
	quiet bool
	// found counts findings, and wrong those that were not repaired.
	found, wrong int
	// line says that progress is shown on the last line.
	line bool
}

// follow shows what the agent tells until it is done.
func (v *verification) follow(stream nodev1.Store_VerifyClient) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			err = command.ErrLost
		}
		if err != nil {
			v.clear()
			return err
		}
		switch {
		case m.GetProgress() != nil:
			v.progress(m.GetProgress())
		case m.GetFinding() != nil:
			v.clear()
			v.finding(m.GetFinding())
		case m.GetSummary() != nil:
			v.clear()
			return v.summary(m.GetSummary())
		}
	}
}

// progress is shown on a terminal, written over each time.
func (v *verification) progress(p *nodev1.VerifyProgress) {
	if v.quiet || !terminal.Is(v.cli.Err) {
		return
	}
	v.line = true
	fmt.Fprintf(v.cli.Err, "\r\x1b[K%s of %s", format.Total(p.GetDoneBytes()), format.Total(p.GetTotalBytes()))
}

func (v *verification) clear() {
	if v.line {
		fmt.Fprint(v.cli.Err, "\r\x1b[K")
		v.line = false
	}
}

func (v *verification) finding(f *nodev1.StoreFinding) {
	v.found++
	what := f.GetKind() + " " + f.GetName()
	if f.GetPath() != "" {
		what += fmt.Sprintf(" %q", f.GetPath())
	}
	out := v.cli.Out
	fmt.Fprintf(out, "%s: %s\n", what, f.GetProblem())
	if len(f.GetImageIds()) == 0 {
		fmt.Fprintln(out, "    no image needs it")
	}
	for _, id := range f.GetImageIds() {
		fmt.Fprintf(out, "    image %s\n", id)
	}
	switch {
	case f.GetRepaired():
		fmt.Fprintln(out, "    repaired")
		return
	case f.GetRepairError() != "":
		fmt.Fprintf(out, "    not repaired: %s\n", f.GetRepairError())
	}
	v.wrong++
}

// summary ends it; the error has exit code 1 and no words when something is
// wrong.
func (v *verification) summary(s *nodev1.VerifySummary) error {
	if !v.quiet {
		fmt.Fprintf(v.cli.Out, "Verified %d blobs and %d layers, %s.\n", s.GetBlobs(), s.GetLayers(), format.Total(s.GetBytes()))
		if s.GetUnchecked() > 0 {
			fmt.Fprintf(v.cli.Out, "%d layers have no checksums.\n", s.GetUnchecked())
		}
		switch {
		case v.found == 0:
			fmt.Fprintln(v.cli.Out, "Nothing is damaged.")
		case v.wrong == 0:
			fmt.Fprintln(v.cli.Out, "All that was damaged is repaired.")
		}
	}
	if v.wrong > 0 {
		return &command.Exit{Code: 1}
	}
	return nil
}
