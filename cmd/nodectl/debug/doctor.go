package debug

import (
	"fmt"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
)

// doctorFlags are the flags of doctor.
type doctorFlags struct {
	fix, quiet bool
	format     string
}

// NewDoctor is `nodectl doctor`.
func NewDoctor(cli *command.CLI) *cobra.Command {
	var flags doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor [OPTIONS]",
		Short: "Say what of the host is missing or wrong, and the command that mends it",
		Long: `Say what of the host is missing or wrong for pods, and the command that mends it.
The exit code is 1 when something is wrong. With --fix the agent mends what it
can without harm: kernel modules, sysctls, the socket's mode, and what belongs to
no pod any more.`,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := cli.Debug()
			if err != nil {
				return err
			}
			resp, err := client.Doctor(cmd.Context(), &nodev1.DoctorRequest{Fix: flags.fix})
			if err != nil {
				return err
			}
			return flags.write(cli, resp.GetFindings())
		},
	}
	f := cmd.Flags()
	f.BoolVar(&flags.fix, "fix", false, "Mend what can be mended without harm")
	f.BoolVarP(&flags.quiet, "quiet", "q", false, "Only show what is wrong")
	f.StringVar(&flags.format, "format", "", `Format output: "table", "table TEMPLATE", "json" or a Go template`)
	return cmd
}

// write writes the findings; the error has exit code 1 and no words when
// something is wrong that was not mended.
func (f doctorFlags) write(cli *command.CLI, findings []*nodev1.Finding) error {
	list := format.List{Format: f.format, Header: findingHeader, Default: `{{.Level}}\t{{.Check}}\t{{.Text}}`}
	wrong := 0
	for _, finding := range findings {
		bad := finding.GetLevel() >= nodev1.Finding_WARNING
		if bad && !finding.GetFixed() {
			wrong++
		}
		if bad || !f.quiet {
			list.Rows = append(list.Rows, findingRow{finding})
		}
	}
	var err error
	if f.format == "" {
		err = writeFindings(cli, list.Rows, wrong, f.quiet)
	} else {
		err = list.Write(cli.Out)
	}
	if err == nil && wrong > 0 {
		err = &command.Exit{Code: 1}
	}
	return err
}

// writeFindings writes them for a person: each with its remedy below.
func writeFindings(cli *command.CLI, rows []any, wrong int, quiet bool) error {
	var out strings.Builder
	for _, row := range rows {
		f := row.(findingRow)
		fmt.Fprintf(&out, "%-8s %-17s %s\n", f.Level(), f.Check(), printable(f.Text()))
		if f.f.GetLevel() == nodev1.Finding_OK {
			continue
		}
		const indent = 27
		switch {
		case f.f.GetFixed():
			fmt.Fprintf(&out, "%*sit was mended\n", indent, "")
		case f.f.GetFixError() != "":
			fmt.Fprintf(&out, "%*scould not be mended: %s\n", indent, "", printable(f.f.GetFixError()))
		case f.Remedy() != "":
			fmt.Fprintf(&out, "%*s%s\n", indent, "", remedy(f))
		}
	}
	switch {
	case wrong == 0 && !quiet:
		out.WriteString("\nNothing is wrong.\n")
	case wrong == 1:
		out.WriteString("\nOne thing is wrong.\n")
	case wrong > 1:
		fmt.Fprintf(&out, "\n%d things are wrong.\n", wrong)
	}
	_, err := fmt.Fprint(cli.Out, out.String())
	return err
}

// remedy says what to do, and whether --fix would.
func remedy(f findingRow) string {
	text := "mend it: " + printable(f.Remedy())
	if f.f.GetFixable() && f.f.GetLevel() >= nodev1.Finding_WARNING && f.Remedy() != "nodectl doctor --fix" {
		text += "    (or: nodectl doctor --fix)"
	}
	return text
}

// findingHeader are the headers of doctor.
var findingHeader = format.Header{
	"Level": "LEVEL", "Check": "CHECK", "Text": "FINDING", "Remedy": "REMEDY", "Fixable": "FIXABLE", "Fixed": "FIXED", "FixError": "WHY NOT",
}

// findingRow is a finding as doctor shows it; its methods are the fields of
// templates.
type findingRow struct{ f *nodev1.Finding }

// Level is "ok", "note", "warning" or "problem".
func (r findingRow) Level() string { return strings.ToLower(r.f.GetLevel().String()) }

// Check is what was looked at.
func (r findingRow) Check() string { return r.f.GetCheck() }

// Text is what was found.
func (r findingRow) Text() string { return r.f.GetText() }

// Remedy is the command that mends it.
func (r findingRow) Remedy() string { return r.f.GetRemedy() }

// Fixable says whether --fix mends it.
func (r findingRow) Fixable() bool { return r.f.GetFixable() }

// Fixed says that it did.
func (r findingRow) Fixed() bool { return r.f.GetFixed() }

// FixError says why it could not.
func (r findingRow) FixError() string { return r.f.GetFixError() }
