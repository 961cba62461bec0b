package container

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/docker/go-units"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/nodeagent/nodeagent/cmd/nodectl/terminal"
	"github.com/spf13/cobra"
)

const (
	// statsPause is how long the two readings of a CPU's use are apart. The
	// agent's figures are up to a second old.
	statsPause = 1100 * time.Millisecond
	// clearScreen puts the cursor home and clears what is below.
	clearScreen = "\x1b[H\x1b[J"
)

// statsFlags are the flags of stats.
type statsFlags struct {
	all, noStream, noTrunc, pods bool
	format                       string
}

// NewStats is `nodectl stats`.
func NewStats(cli *command.CLI) *cobra.Command {
	var flags statsFlags
	cmd := &cobra.Command{
		Use:   "stats [OPTIONS] [CONTAINER...]",
		Short: "Display a live stream of container(s) resource usage statistics",
		RunE: func(cmd *cobra.Command, args []string) error {
			return flags.run(cmd.Context(), cli, args)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&flags.all, "all", "a", false, "Show all containers (default shows just running)")
	f.BoolVar(&flags.noStream, "no-stream", false, "Disable streaming stats and only pull the first result")
	f.BoolVar(&flags.noTrunc, "no-trunc", false, "Do not truncate output")
	f.BoolVar(&flags.pods, "pods", false, "Show kubelet's pods, each as a whole")
	f.StringVar(&flags.format, "format", "", `Format output: "table", "table TEMPLATE", "json" or a Go template`)
	return cmd
}

func (f *statsFlags) run(ctx context.Context, cli *command.CLI, names []string) error {
	if f.format == "" && !f.pods {
		f.format = cli.DockerConfig().StatsFormat
	}
	read, err := f.reader(ctx, cli, names)
	if err != nil {
		return err
	}
	before, err := read(ctx)
	if err != nil {
		return err
	}
	tick := time.NewTicker(statsPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		now, err := read(ctx)
		if err != nil {
			return err
		}
		if err := f.write(cli, before, now, names); err != nil || f.noStream {
			return err
		}
		before = now
	}
}

// reader gives what reads the figures that were asked for.
func (f *statsFlags) reader(ctx context.Context, cli *command.CLI, names []string) (func(context.Context) (*nodev1.StatsResponse, error), error) {
	if f.pods {
		return readPods(ctx, cli, names)
	}
	client, err := cli.Containers()
	if err != nil {
		return nil, err
	}
	if names, err = expandPods(ctx, client, names); err != nil {
		return nil, err
	}
	return func(ctx context.Context) (*nodev1.StatsResponse, error) {
		return client.Stats(ctx, &nodev1.StatsRequest{Containers: names})
	}, nil
}

// write writes one screen.
func (f *statsFlags) write(cli *command.CLI, before, now *nodev1.StatsResponse, names []string) error {
	former := map[string]*nodev1.Stats{}
	for _, s := range before.GetStats() {
		former[s.GetId()] = s
	}
	list := format.List{
		Format: f.format, Header: statsHeader,
		Default: `{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}`,
	}
	if f.pods {
		list.Header, list.Default = podStatsHeader, podColumns
	}
	for i, s := range now.GetStats() {
		row := statsRow{before: former[s.GetId()], now: s, whole: f.noTrunc}
		if !f.pods && len(names) == len(now.GetStats()) {
			row.asked = names[i] // they are in that order
		}
		live := s.GetState() == "running" || s.GetState() == "paused"
		if live || f.all || len(names) > 0 {
			list.Rows = append(list.Rows, row)
		}
	}
	var screen bytes.Buffer
	if !f.noStream && f.format == "" && terminal.Is(cli.Out) {
		screen.WriteString(clearScreen)
	}
	if err := list.Write(&screen); err != nil {
		return err
	}
	_, err := screen.WriteTo(cli.Out)
	return err
}

// statsHeader are the headers of stats.
var statsHeader = format.Header{
	"ID": "CONTAINER ID", "Name": "NAME", "Container": "CONTAINER", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT",
	"MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
}

// statsRow is what one container uses; its methods are the fields of templates.
type statsRow struct {
	before, now *nodev1.Stats
	whole       bool
	asked       string
}

// ID is the container's ID, shortened unless asked for whole.
func (r statsRow) ID() string { return format.ID(r.now.GetId(), r.whole) }

// Container is what the person called it, or the ID.
func (r statsRow) Container() string { return cmp.Or(r.asked, r.ID()) }

// Name is the container's name.
func (r statsRow) Name() string { return r.now.GetName() }

// CPUPerc is the use of CPUs between two readings, 100 % for each.
func (r statsRow) CPUPerc() string {
	elapsed := r.now.GetAt().AsTime().Sub(r.before.GetAt().AsTime())
	percent := 0.0
	if r.before != nil && elapsed > 0 && r.now.GetCpuNanos() > r.before.GetCpuNanos() {
		percent = 100 * float64(r.now.GetCpuNanos()-r.before.GetCpuNanos()) / float64(elapsed.Nanoseconds())
	}
	return fmt.Sprintf("%.2f%%", percent)
}

// MemUsage is the memory used and the limit.
func (r statsRow) MemUsage() string {
	return units.BytesSize(float64(r.now.GetMemoryBytes())) + " / " + units.BytesSize(float64(r.now.GetMemoryLimit()))
}

// MemPerc is how much of the limit is used.
func (r statsRow) MemPerc() string {
	if r.now.GetMemoryLimit() == 0 {
		return "0.00%"
	}
	return fmt.Sprintf("%.2f%%", 100*float64(r.now.GetMemoryBytes())/float64(r.now.GetMemoryLimit()))
}

// NetIO is what was received and sent.
func (r statsRow) NetIO() string {
	return format.Size(int64(r.now.GetNetworkReceived())) + " / " + format.Size(int64(r.now.GetNetworkSent()))
}

// BlockIO is what was read and written.
func (r statsRow) BlockIO() string {
	return format.Size(int64(r.now.GetBlockRead())) + " / " + format.Size(int64(r.now.GetBlockWritten()))
}

// PIDs is the number of tasks.
func (r statsRow) PIDs() string { return fmt.Sprint(r.now.GetPids()) }
