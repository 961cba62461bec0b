package image

import (
	"strconv"
	"strings"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
)

// historyFlags are the flags of history.
type historyFlags struct {
	human, quiet, noTrunc bool
	format, platform      string
}

// NewHistory is `nodectl history`.
func NewHistory(cli *command.CLI) *cobra.Command {
	var flags historyFlags
	cmd := &cobra.Command{
		Use:   "history [OPTIONS] IMAGE",
		Short: "Show the history of an image",
		Args:  command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Images()
			if err != nil {
				return err
			}
			resp, err := client.History(cmd.Context(), &nodev1.HistoryRequest{Image: args[0], Platform: flags.platform})
			if err != nil {
				return err
			}
			list := flags.list()
			for _, e := range resp.GetEntries() {
				list.Rows = append(list.Rows, historyRow{e, flags})
			}
			return list.Write(cli.Out)
		},
	}
	f := cmd.Flags()
	// The short form of the one for all commands means something else here.
	f.StringVar(&cli.Host, "host", cli.Host, "The nodeagent's socket, unix://PATH")
	_ = f.MarkHidden("host")
	f.BoolVarP(&flags.human, "human", "H", true, "Print sizes and dates in human readable format")
	f.BoolVarP(&flags.quiet, "quiet", "q", false, "Only show image IDs")
	f.BoolVar(&flags.noTrunc, "no-trunc", false, "Don't truncate output")
	f.StringVar(&flags.format, "format", "", `Format output: "table", "table TEMPLATE", "json" or a Go template`)
	f.StringVar(&flags.platform, "platform", "", `Show history for the given platform. Formatted as "os[/arch[/variant]]"`)
	return cmd
}

func (f historyFlags) list() format.List {
	list := format.List{Format: f.format, Header: historyHeader, Default: `{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}`}
	if f.quiet {
		list.Format = "{{.ID}}"
	}
	return list
}

var historyHeader = format.Header{
	"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT",
}

// longestStep is how many characters of a step are shown.
const longestStep = 45

// historyRow is a step; its methods are the fields of templates.
type historyRow struct {
	entry *nodev1.HistoryEntry
	flags historyFlags
}

// ID is the image's, which only its last step has.
func (r historyRow) ID() string {
	if r.entry.GetId() == "" {
		return "<missing>"
	}
	return format.ID(r.entry.GetId(), r.flags.noTrunc)
}

// CreatedAt is when the step was made.
func (r historyRow) CreatedAt() string {
	return r.entry.GetCreatedAt().AsTime().Local().Format(time.RFC3339)
}

// CreatedSince is how long ago that was, for people.
func (r historyRow) CreatedSince() string {
	if !r.flags.human {
		return r.CreatedAt()
	}
	// Some builders give all steps the time zero.
	if at := r.entry.GetCreatedAt().AsTime(); at.Year() >= 2000 {
		return format.Ago(at)
	}
	return "N/A"
}

// CreatedBy is the command of the step.
func (r historyRow) CreatedBy() string {
	text := strings.ReplaceAll(r.entry.GetCreatedBy(), "\t", " ")
	if r.flags.noTrunc {
		return text
	}
	return format.Ellipsis(text, longestStep)
}

// Size is what the step added.
func (r historyRow) Size() string {
	if r.flags.human {
		return format.Size(r.entry.GetSize())
	}
	return strconv.FormatInt(r.entry.GetSize(), 10)
}

// Comment is what was said about the step.
func (r historyRow) Comment() string { return r.entry.GetComment() }
