package network

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// NewPrune is `nodectl network prune`.
func NewPrune(cli *command.CLI) *cobra.Command {
	var force bool
	var filters []string
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove all unused networks",
		Args:  command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req, err := pruneRequest(filters, time.Now())
			if err != nil {
				return err
			}
			if !force && !cli.Confirm("WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue?") {
				return nil
			}
			client, err := cli.Networks()
			if err != nil {
				return err
			}
			resp, err := client.Prune(cmd.Context(), req)
			if err != nil {
				return err
			}
			if len(resp.GetRemoved()) > 0 {
				fmt.Fprintln(cli.Out, "Deleted Networks:\n"+strings.Join(resp.GetRemoved(), "\n")+"\n")
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	command.AddFilter(cmd.Flags(), &filters, "", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}

// pruneRequest reads the filters of prune.
func pruneRequest(filters []string, now time.Time) (*nodev1.PruneNetworksRequest, error) {
	req := &nodev1.PruneNetworksRequest{}
	for _, text := range filters {
		name, value, ok := strings.Cut(text, "=")
		switch {
		case !ok:
			return nil, fmt.Errorf("invalid filter '%s'", text)
		case name == "label":
			req.Labels = append(req.Labels, value)
		case name == "label!":
			req.LabelsNot = append(req.LabelsNot, value)
		case name == "until":
			at, err := momentOf(value, now)
			if err != nil {
				return nil, err
			}
			req.Until = timestamppb.New(at)
		default:
			return nil, fmt.Errorf("invalid filter '%s'", name)
		}
	}
	return req, nil
}

// momentOf reads a time: RFC 3339, seconds since 1970, or how long ago.
func momentOf(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return at, nil
		}
	}
	if seconds, err := strconv.ParseInt(text, 10, 62); err == nil {
		return time.Unix(seconds, 0), nil
	}
	return time.Time{}, fmt.Errorf("failed to parse value as time or duration: %q", text)
}
