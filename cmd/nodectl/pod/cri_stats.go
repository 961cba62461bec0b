package pod

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// criStatsFlags are the flags of cri-stats.
type criStatsFlags struct {
	all, pods, watched, noTrunc bool
	id, pod, output, format     string
	labels                      []string
	seconds                     int
}

// NewCRIStats is `nodectl cri-stats`: what crictl's stats and statsp show.
func NewCRIStats(cli *command.CLI) *cobra.Command {
	var flags criStatsFlags
	cmd := &cobra.Command{
		Use:   "cri-stats [OPTIONS] [ID]",
		Short: "Show what kubelet's containers or pods use, as CRI tells kubelet",
		Args:  command.RangeArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				flags.id = args[0]
			}
			return flags.run(cmd.Context(), cli)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&flags.all, "all", "a", false, "Show all containers (default shows just running)")
	f.BoolVar(&flags.pods, "pods", false, "Show pods, each as a whole")
	f.StringVar(&flags.id, "id", "", "Show the one with this ID or beginning of it")
	f.StringVarP(&flags.pod, "pod", "p", "", "Show the containers of this pod")
	f.StringArrayVar(&flags.labels, "label", nil, "Show those with this label, KEY=VALUE")
	f.StringVarP(&flags.output, "output", "o", outputTable, `Output format: "table", "json" or "yaml"`)
	f.StringVar(&flags.format, "format", "", `Format output: "table", "table TEMPLATE", "json" or a Go template`)
	f.IntVarP(&flags.seconds, "seconds", "s", 1, "Seconds that the share of the CPU is measured for")
	f.BoolVarP(&flags.watched, "watch", "w", false, "Show it again and again")
	f.BoolVar(&flags.noTrunc, "no-trunc", false, "Don't truncate output")
	command.Complete(cmd, "pod", Completion(cli))
	return cmd
}

func (f *criStatsFlags) run(ctx context.Context, cli *command.CLI) error {
	if err := checkOutput(f.output, outputTable, outputJSON, outputYAML); err != nil {
		return err
	}
	if f.seconds < 1 {
		return fmt.Errorf("invalid value for --seconds: %d", f.seconds)
	}
	labels := map[string]string{}
	for _, label := range f.labels {
		key, value, ok := strings.Cut(label, "=")
		if !ok {
			return fmt.Errorf("invalid label %q: it must be KEY=VALUE", label)
		}
		labels[key] = value
	}
	client, err := cli.Runtime()
	if err != nil {
		return err
	}
	if f.pod != "" {
		if f.pod, err = find(ctx, client, f.pod); err != nil {
			return err
		}
	}
	read := func(ctx context.Context) (reading, error) { return readContainers(ctx, client, f, labels) }
	if f.pods {
		read = func(ctx context.Context) (reading, error) { return readPods(ctx, client, f, labels) }
	}
	return watch(ctx, cli, f.watched, func() error { return f.write(ctx, cli, read) })
}

// write measures and shows once.
func (f *criStatsFlags) write(ctx context.Context, cli *command.CLI, read func(context.Context) (reading, error)) error {
	before, err := read(ctx)
	if err != nil {
		return err
	}
	if f.output != outputTable && f.format == "" {
		return writeAs(cli, f.output, "", before.raw)
	}
	timer := time.NewTimer(time.Duration(f.seconds) * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	now, err := read(ctx)
	if err != nil {
		return err
	}
	list := format.List{Format: f.format, Header: criStatsHeader, Default: `{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.Mem}}\t{{.Disk}}\t{{.Inodes}}\t{{.Swap}}`}
	if f.pods {
		list.Header, list.Default = criPodStatsHeader, `{{.Name}}\t{{.ID}}\t{{.CPUPerc}}\t{{.Mem}}`
	}
	for _, row := range now.rows {
		if i := slices.IndexFunc(before.rows, func(b criStatsRow) bool { return b.id == row.id }); i >= 0 {
			row.before = before.rows[i].cpu
		}
		list.Rows = append(list.Rows, row)
	}
	return list.Write(cli.Out)
}

// reading is what CRI answered: as it is, and in rows.
type reading struct {
	raw  any
	rows []criStatsRow
}

// readContainers reads what containers use. CRI's filter by state there is
// none, so those that do not run are left out here.
func readContainers(ctx context.Context, client runtime.RuntimeServiceClient, f *criStatsFlags, labels map[string]string) (out reading, err error) {
	resp, err := client.ListContainerStats(ctx, &runtime.ListContainerStatsRequest{
		Filter: &runtime.ContainerStatsFilter{Id: f.id, PodSandboxId: f.pod, LabelSelector: labels},
	})
	if err != nil {
		return out, err
	}
	if !f.all {
		running, err := client.ListContainers(ctx, &runtime.ListContainersRequest{Filter: &runtime.ContainerFilter{
			State: &runtime.ContainerStateValue{State: runtime.ContainerState_CONTAINER_RUNNING},
		}})
		if err != nil {
			return out, err
		}
		resp.Stats = slices.DeleteFunc(resp.GetStats(), func(s *runtime.ContainerStats) bool {
			return !slices.ContainsFunc(running.GetContainers(), func(c *runtime.Container) bool { return c.GetId() == s.GetAttributes().GetId() })
		})
	}
	for _, s := range resp.GetStats() {
		out.rows = append(out.rows, criStatsRow{
			id: s.GetAttributes().GetId(), name: s.GetAttributes().GetMetadata().GetName(), whole: f.noTrunc,
			cpu: s.GetCpu(), memory: s.GetMemory(), disk: s.GetWritableLayer(), swap: s.GetSwap(),
		})
	}
	out.sort()
	out.raw, err = message(resp)
	return out, err
}

// readPods reads what pods use.
func readPods(ctx context.Context, client runtime.RuntimeServiceClient, f *criStatsFlags, labels map[string]string) (out reading, err error) {
	resp, err := client.ListPodSandboxStats(ctx, &runtime.ListPodSandboxStatsRequest{
		Filter: &runtime.PodSandboxStatsFilter{Id: f.id, LabelSelector: labels},
	})
	if err != nil {
		return out, err
	}
	resp.Stats = slices.DeleteFunc(resp.GetStats(), func(s *runtime.PodSandboxStats) bool {
		return f.pod != "" && s.GetAttributes().GetId() != f.pod
	})
	for _, s := range resp.GetStats() {
		out.rows = append(out.rows, criStatsRow{
			id: s.GetAttributes().GetId(), name: s.GetAttributes().GetMetadata().GetName(), whole: f.noTrunc,
			cpu: s.GetLinux().GetCpu(), memory: s.GetLinux().GetMemory(),
		})
	}
	out.sort()
	out.raw, err = message(resp)
	return out, err
}

func (r reading) sort() {
	slices.SortFunc(r.rows, func(a, b criStatsRow) int { return strings.Compare(a.id, b.id) })
}

// criStatsHeader are the headers of cri-stats, criPodStatsHeader those with
// --pods; both are crictl's.
var (
	criStatsHeader = format.Header{
		"ID": "CONTAINER", "Name": "NAME", "CPUPerc": "CPU %", "Mem": "MEM", "Disk": "DISK", "Inodes": "INODES", "Swap": "SWAP",
	}
	criPodStatsHeader = format.Header{"Name": "POD", "ID": "POD ID", "CPUPerc": "CPU %", "Mem": "MEM"}
)

// criStatsRow is a container or pod in cri-stats; its methods are the fields
// of templates.
type criStatsRow struct {
	id, name    string
	whole       bool
	before, cpu *runtime.CpuUsage
	memory      *runtime.MemoryUsage
	disk        *runtime.FilesystemUsage
	swap        *runtime.SwapUsage
}

// ID is shortened to crictl's 13 digits unless asked for whole.
func (r criStatsRow) ID() string {
	if r.whole {
		return r.id
	}
	return r.id[:min(len(r.id), 13)]
}

// Name is the container's name in its pod, or the pod's.
func (r criStatsRow) Name() string { return r.name }

// CPUPerc is the share of one processor between two readings.
func (r criStatsRow) CPUPerc() string {
	passed := r.cpu.GetTimestamp() - r.before.GetTimestamp()
	used := int64(r.cpu.GetUsageCoreNanoSeconds().GetValue()) - int64(r.before.GetUsageCoreNanoSeconds().GetValue())
	if r.before == nil || passed <= 0 || used < 0 {
		return "0.00"
	}
	return fmt.Sprintf("%.2f", 100*float64(used)/float64(passed))
}

// Mem is the working set, by which kubelet evicts.
func (r criStatsRow) Mem() string {
	return format.Total(int64(r.memory.GetWorkingSetBytes().GetValue()))
}

// Disk is what the container wrote, and Inodes in how many files.
func (r criStatsRow) Disk() string { return format.Total(int64(r.disk.GetUsedBytes().GetValue())) }

// Inodes is how many files and folders the container made or changed.
func (r criStatsRow) Inodes() string { return fmt.Sprint(r.disk.GetInodesUsed().GetValue()) }

// Swap is how much of it is swapped out.
func (r criStatsRow) Swap() string {
	return format.Total(int64(r.swap.GetSwapUsageBytes().GetValue()))
}
