// Package debug holds the commands of nodectl that say why something on the
// node is as it is.
package debug

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
)

// story is what templates and JSON have of a story.
type story struct {
	Kind, ID, Name, PodID, Image string
	State, Cause                 string
	Hints                        []string
	Containers                   []part
	Log                          []string
	Timeline                     []moment
	Dropped                      uint64
}

type part struct{ ID, Name, State, Cause string }

type moment struct {
	At          time.Time
	Duration    time.Duration
	Container   string
	Text, Error string
}

// NewWhy is `nodectl why`.
func NewWhy(cli *command.CLI) *cobra.Command {
	var source string
	var last int32
	cmd := &cobra.Command{
		Use:   "why [OPTIONS] [CONTAINER|POD]",
		Short: "Tell why a container or pod is as it is, also of one that was removed",
		Long: `Tell why a container or pod is as it is: its state, the cause, what to do about
it, what it wrote last, and all that happened to it with the time that took.
Those that were removed are known for as long as the agent's recorder reaches.

Name it by its ID or the beginning of that, by the name of one of nodectl's
containers, or as NAMESPACE/POD[/CONTAINER].

Without a name it lists what went wrong on the node in the last hour.`,
		Args: command.RangeArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Debug()
			if err != nil {
				return err
			}
			object := ""
			if len(args) > 0 {
				if object = args[0]; object == "" {
					return errors.New("No such object: ")
				}
			}
			resp, err := client.Why(cmd.Context(), &nodev1.WhyRequest{Object: object, Moments: last})
			if err != nil {
				return err
			}
			s := storyOf(resp)
			if source != "" {
				return format.Value(cli.Out, source, s)
			}
			return s.write(cli.Out)
		},
	}
	cmd.Flags().StringVarP(&source, "format", "f", "", `Format output: "json" or a Go template`)
	cmd.Flags().Int32VarP(&last, "last", "n", 0, "Number of latest moments of the timeline to show (default 200)")
	return cmd
}

func storyOf(r *nodev1.WhyResponse) story {
	s := story{
		Kind: r.GetKind(), ID: r.GetId(), Name: r.GetName(), PodID: r.GetPodId(), Image: r.GetImage(),
		State: r.GetState(), Cause: r.GetCause(), Hints: r.GetHints(), Log: r.GetLog(), Dropped: r.GetDropped(),
	}
	for _, c := range r.GetContainers() {
		s.Containers = append(s.Containers, part{ID: c.GetId(), Name: c.GetName(), State: c.GetState(), Cause: c.GetCause()})
	}
	for _, m := range r.GetTimeline() {
		s.Timeline = append(s.Timeline, moment{
			At: m.GetAt().AsTime(), Duration: m.GetTook().AsDuration(), Container: m.GetContainer(), Text: m.GetText(), Error: m.GetError(),
		})
	}
	return s
}

// write writes a story for a person.
func (s story) write(to io.Writer) error {
	var out strings.Builder
	if s.Kind == "node" {
		return s.writeNode(to)
	}
	fmt.Fprintf(&out, "%s (%s", printable(s.Name), s.Kind)
	if s.ID != "" {
		fmt.Fprintf(&out, " %s", format.ID(s.ID, false))
	}
	if s.Image != "" {
		fmt.Fprintf(&out, ", image %s", printable(s.Image))
	}
	out.WriteString(")\n\n")
	paragraph(&out, "State", s.State)
	paragraph(&out, "Cause", s.Cause)
	for i, hint := range s.Hints {
		name := ""
		if i == 0 {
			name = "To do"
		}
		paragraph(&out, name, hint)
	}
	if len(s.Containers) > 0 {
		out.WriteString("\nContainers:\n")
		for _, c := range s.Containers {
			fmt.Fprintf(&out, "  %s (%s, %s): %s\n", printable(c.Name), format.ID(c.ID, false), c.State, printable(c.Cause))
		}
	}
	if len(s.Log) > 0 {
		out.WriteString("\nWritten last:\n")
		for _, line := range s.Log {
			fmt.Fprintf(&out, "  %s\n", printable(line))
		}
	}
	s.writeTimeline(&out)
	if s.Dropped > 0 {
		fmt.Fprintf(&out, "\nThe recorder lost %d entries since the agent started, since the disk was too slow or full.\n", s.Dropped)
	}
	_, err := io.WriteString(to, out.String())
	return err
}

// writeNode writes what went wrong on the node.
func (s story) writeNode(to io.Writer) error {
	var out strings.Builder
	out.WriteString(s.State + "\n")
	for _, c := range s.Containers {
		fmt.Fprintf(&out, "\n%s, %s\n", printable(c.Name), c.State)
		paragraph(&out, "", c.Cause)
	}
	if len(s.Hints) > 0 {
		out.WriteString("\n" + strings.Join(s.Hints, "\n") + "\n")
	}
	_, err := io.WriteString(to, out.String())
	return err
}

func (s story) writeTimeline(out *strings.Builder) {
	if len(s.Timeline) == 0 {
		out.WriteString("\nNothing is recorded of it.\n")
		return
	}
	out.WriteString("\nTimeline:\n")
	day := ""
	for _, m := range s.Timeline {
		at := m.At.Local()
		if date := at.Format(time.DateOnly); date != day {
			day = date
			fmt.Fprintf(out, "  %s\n", day)
		}
		took := ""
		if m.Duration > 0 {
			took = duration(m.Duration)
		}
		text := printable(m.Text)
		if m.Container != "" {
			text = m.Container + ": " + text
		}
		fmt.Fprintf(out, "  %s  %8s  %s\n", at.Format("15:04:05.000"), took, text)
		if m.Error != "" {
			fmt.Fprintf(out, "%26s%s\n", "", "failed: "+printable(m.Error))
		}
	}
}

// duration is one with three digits or so.
func duration(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// printable takes away what would move the cursor: a container may have
// written it.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
}

// paragraphWidth is where lines of text are broken.
const paragraphWidth = 96

// paragraph writes text beside its name, broken at blanks.
func paragraph(out *strings.Builder, name, text string) {
	if text == "" {
		return
	}
	const indent = 8
	if name != "" {
		name += ":"
	}
	fmt.Fprintf(out, "%-*s", indent, name)
	column := indent
	for i, word := range strings.Fields(printable(text)) {
		switch {
		case i == 0:
		case column+1+len(word) > paragraphWidth:
			out.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			out.WriteByte(' ')
			column++
		}
		out.WriteString(word)
		column += len(word)
	}
	out.WriteByte('\n')
}
