package container

import (
	"context"
	"errors"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
)

// NewLogs is `nodectl logs`.
func NewLogs(cli *command.CLI) *cobra.Command {
	var (
		follow, timestamps bool
		details            bool
		tail, since, until string
	)
	cmd := &cobra.Command{
		Use:   "logs [OPTIONS] CONTAINER",
		Short: "Fetch the logs of a container",
		Args:  command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &nodev1.LogsRequest{Container: args[0], Follow: follow, Tail: parseTail(tail)}
			var err error
			if req.Since, err = command.TimeFlag("since", since); err != nil {
				return err
			}
			if req.Until, err = command.TimeFlag("until", until); err != nil {
				return err
			}
			client, err := cli.Containers()
			if err != nil {
				return err
			}
			stream, err := client.Logs(cmd.Context(), req)
			if err != nil {
				return err
			}
			prefix := ""
			if details {
				if prefix, err = logDetails(cmd.Context(), client, args[0]); err != nil {
					return err
				}
			}
			return printLogs(cli, stream, timestamps, prefix)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "Follow log output")
	cmd.Flags().StringVarP(&tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	cmd.Flags().StringVar(&since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	cmd.Flags().StringVar(&until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	cmd.Flags().BoolVar(&details, "details", false, "Show extra details provided to logs")
	cmd.Flags().BoolVarP(&timestamps, "timestamps", "t", false, "Show timestamps")
	return cmd
}

// logDetails are the labels and variables that the options of the log name, as
// they go before each line.
func logDetails(ctx context.Context, client nodev1.ContainersClient, name string) (string, error) {
	info, err := client.Inspect(ctx, &nodev1.InspectRequest{Container: name})
	if err != nil {
		return "", err
	}
	options := info.GetSpec().GetLog().GetOptions()
	var details []string
	for _, label := range strings.Split(options["labels"], ",") {
		if value, ok := info.GetContainer().GetLabels()[label]; ok {
			details = append(details, url.QueryEscape(label)+"="+url.QueryEscape(value))
		}
	}
	for _, variable := range strings.Split(options["env"], ",") {
		for _, env := range info.GetEnv() {
			if key, value, _ := strings.Cut(env, "="); key == variable {
				details = append(details, url.QueryEscape(key)+"="+url.QueryEscape(value))
			}
		}
	}
	slices.Sort(details)
	return strings.Join(details, ",") + " ", nil
}

// printLogs writes each entry to the stream it was written to; prefix goes
// before each line.
func printLogs(cli *command.CLI, stream nodev1.Containers_LogsClient, timestamps bool, prefix string) error {
	// begun says, for each stream, that its last entry was a part of a line.
	var begun [2]bool
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range resp.GetEntries() {
			out, n := cli.Out, 0
			if e.GetStream() == nodev1.Output_STDERR {
				out, n = cli.Err, 1
			}
			line := e.GetData()
			if prefix != "" && !begun[n] {
				line = append([]byte(prefix), line...)
			}
			if timestamps && !begun[n] {
				line = append([]byte(e.GetTime().AsTime().UTC().Format(command.NineDigits)+" "), line...)
			}
			begun[n] = !strings.HasSuffix(string(line), "\n")
			if _, err := out.Write(line); err != nil {
				return err
			}
		}
	}
}

// parseTail reads a number of lines; what is none means all, as in docker.
func parseTail(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}
