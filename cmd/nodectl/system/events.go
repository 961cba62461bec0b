package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/distribution/reference"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
)

// event is an event as templates and JSON have it; the names are docker's.
type event struct {
	Status   string `json:"status,omitempty"`
	ID       string `json:"id,omitempty"`
	From     string `json:"from,omitempty"`
	Type     string
	Action   string
	Actor    actor
	Scope    string `json:"scope,omitempty"`
	Time     int64  `json:"time,omitempty"`
	TimeNano int64  `json:"timeNano,omitempty"`
}

type actor struct {
	ID         string
	Attributes map[string]string
}

// NewEvents is `nodectl events`.
func NewEvents(cli *command.CLI) *cobra.Command {
	var (
		since, until, source string
		filters              []string
	)
	cmd := &cobra.Command{
		Use:   "events [OPTIONS]",
		Short: "Get real time events from the node",
		Args:  command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			wanted, err := command.ParseFilters(filters, "container", "event", "image", "label", "network", "type", "volume", "scope")
			if err != nil {
				return err
			}
			req := &nodev1.WatchRequest{}
			if req.Since, err = command.TimeFlag("since", since); err != nil {
				return err
			}
			if req.Until, err = command.TimeFlag("until", until); err != nil {
				return err
			}
			return watchEvents(cmd.Context(), cli, req, wanted, source)
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "Show all events created since timestamp")
	cmd.Flags().StringVar(&until, "until", "", "Stream events until this timestamp")
	cmd.Flags().StringVar(&source, "format", "", `Format output: "json" or a Go template`)
	command.AddFilter(cmd.Flags(), &filters, "f", "Filter output based on conditions provided")
	return cmd
}

// watchEvents prints events as they come.
func watchEvents(ctx context.Context, cli *command.CLI, req *nodev1.WatchRequest, wanted command.Filters, source string) error {
	if source != "" && source != "json" {
		if _, err := format.Parse(source); err != nil {
			return err
		}
	}
	client, err := cli.Events()
	if err != nil {
		return err
	}
	stream, err := client.Watch(ctx, req)
	if err != nil {
		return err
	}
	for {
		e, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !eventMatches(e, wanted) {
			continue
		}
		if source == "" {
			fmt.Fprintln(cli.Out, eventLine(e))
		} else if err := format.Value(cli.Out, source, eventValue(e)); err != nil {
			return err
		}
	}
}

// eventMatches says whether an event is asked for. A filter by an object takes
// its ID, the begin of it, or its name.
func eventMatches(e *nodev1.Event, wanted command.Filters) bool {
	object := func(kind string) bool {
		return wanted.Any(kind, func(want string) bool {
			name := e.GetAttributes()["name"]
			if kind == "image" {
				return ofImage(e, want)
			}
			return (e.GetType() == kind && (strings.HasPrefix(e.GetId(), want) || name == want)) || e.GetAttributes()[kind] == want
		})
	}
	return wanted.Any("type", func(want string) bool { return e.GetType() == want }) &&
		wanted.Any("event", func(want string) bool {
			return e.GetAction() == want || strings.HasPrefix(e.GetAction(), want+":")
		}) &&
		wanted.Any("scope", func(want string) bool { return want == "local" }) &&
		object("container") && object("image") && object("network") && object("volume") && wanted.Labels(e.GetAttributes())
}

// ofImage says whether an event is of an image, or of a container of it. An
// image is meant by its name, with its tag or without, or by its ID.
func ofImage(e *nodev1.Event, want string) bool {
	name := e.GetAttributes()["image"]
	if e.GetType() == "image" {
		name = e.GetAttributes()["name"]
		if want != "" && (strings.HasPrefix(e.GetId(), want) || strings.HasPrefix(strings.TrimPrefix(e.GetId(), "sha256:"), want)) {
			return true
		}
	}
	if name == want {
		return true
	}
	ref, err := reference.ParseNormalizedNamed(name)
	return err == nil && (reference.FamiliarName(ref) == want || reference.FamiliarString(ref) == want)
}

// eventLine is an event as docker prints it.
func eventLine(e *nodev1.Event) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s %s", e.GetAt().AsTime().Local().Format(command.NineDigits), e.GetType(), e.GetAction(), e.GetId())
	if len(e.GetAttributes()) > 0 {
		b.WriteString(" (" + format.Pairs(e.GetAttributes(), ", ") + ")")
	}
	return b.String()
}

// eventValue is an event with docker's names.
func eventValue(e *nodev1.Event) event {
	at := e.GetAt().AsTime()
	out := event{
		Type: e.GetType(), Action: e.GetAction(), Actor: actor{ID: e.GetId(), Attributes: e.GetAttributes()},
		Scope: "local", Time: at.Unix(), TimeNano: at.UnixNano(),
	}
	if e.GetType() == "container" || e.GetType() == "image" {
		out.Status, out.ID, out.From = e.GetAction(), e.GetId(), e.GetAttributes()["image"]
	}
	return out
}
