package container

import (
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
)

// NewStop is `nodectl stop`.
func NewStop(cli *command.CLI) *cobra.Command {
	var timeout stopTimeout
	cmd := &cobra.Command{
		Use:   "stop [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Stop one or more running containers",
		Args:  command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := cli.Containers()
			if err != nil {
				return err
			}
			return cli.Each(args, func(name string) error {
				_, err := client.Stop(cmd.Context(), &nodev1.StopRequest{
					Container: name, Timeout: timeout.value(), Signal: timeout.signal,
				})
				return err
			}, cli.PrintArg)
		},
	}
	timeout.add(cmd)
	return cmd
}

// stopTimeout are the flags of stop and restart.
type stopTimeout struct {
	seconds int
	signal  string
	given   func() bool
}

// forever stands for a negative timeout, and for one that no clock can tell: the container is not killed.
const forever = 10 * 365 * 24 * time.Hour

func (t *stopTimeout) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&t.signal, "signal", "s", "", "Signal to send to the container")
	cmd.Flags().IntVarP(&t.seconds, "timeout", "t", 0, "Seconds to wait before killing the container")
	cmd.Flags().IntVar(&t.seconds, "time", 0, "Seconds to wait before killing the container")
	_ = cmd.Flags().MarkHidden("time") // fails for an unknown flag only
	t.given = func() bool { return cmd.Flags().Changed("timeout") || cmd.Flags().Changed("time") }
}

// value is nil when the flag was not given.
func (t *stopTimeout) value() *durationpb.Duration {
	switch {
	case !t.given():
		return nil
	case t.seconds < 0 || t.seconds > int(forever/time.Second):
		return durationpb.New(forever)
	}
	return durationpb.New(time.Duration(t.seconds) * time.Second)
}
