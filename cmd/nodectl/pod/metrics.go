package pod

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// metricsFlags are the flags of metrics.
type metricsFlags struct {
	output               string
	descriptors, watched bool
}

// NewMetrics is `nodectl metrics`: what crictl's metricsp and metricdescs show.
func NewMetrics(cli *command.CLI) *cobra.Command {
	var flags metricsFlags
	cmd := &cobra.Command{
		Use:   "metrics [OPTIONS] [POD...]",
		Short: "Show the metrics of kubelet's pods, as CRI has them",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(flags.output, outputJSON, outputYAML, outputText); err != nil {
				return err
			}
			return flags.run(cmd.Context(), cli, args)
		},
		ValidArgsFunction: Completion(cli),
	}
	f := cmd.Flags()
	f.StringVarP(&flags.output, "output", "o", outputJSON, `Output format: "json", "yaml" or "text", which is Prometheus'`)
	f.BoolVar(&flags.descriptors, "descriptors", false, "Show which metrics there are, with their help and labels")
	f.BoolVarP(&flags.watched, "watch", "w", false, "Show them again each second")
	return cmd
}

// NewMetricsNamed is metrics under the names that crictl has for it.
func NewMetricsNamed(cli *command.CLI, name string, descriptors bool) *cobra.Command {
	cmd := NewMetrics(cli)
	cmd.Use, cmd.Hidden = name+" [OPTIONS]", true
	if descriptors {
		run := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if err := cmd.Flags().Set("descriptors", "true"); err != nil {
				return err
			}
			return run(cmd, args)
		}
	}
	return cmd
}

func (f metricsFlags) run(ctx context.Context, cli *command.CLI, names []string) error {
	client, err := cli.Runtime()
	if err != nil {
		return err
	}
	if f.descriptors && f.output != outputText {
		resp, err := client.ListMetricDescriptors(ctx, &runtime.ListMetricDescriptorsRequest{})
		if err != nil {
			return err
		}
		raw, err := message(resp)
		if err != nil {
			return err
		}
		return writeAs(cli, f.output, "", raw)
	}
	wanted := map[string]bool{}
	for _, name := range names {
		id, err := find(ctx, client, name)
		if err != nil {
			return err
		}
		wanted[id] = true
	}
	return watch(ctx, cli, f.watched, func() error { return f.write(ctx, cli, client, wanted) })
}

// write reads the metrics of pods, or of all where none is named, and shows
// them.
func (f metricsFlags) write(ctx context.Context, cli *command.CLI, client runtime.RuntimeServiceClient, wanted map[string]bool) error {
	resp := &runtime.ListPodSandboxMetricsResponse{}
	if !f.descriptors {
		var err error
		if resp, err = client.ListPodSandboxMetrics(ctx, &runtime.ListPodSandboxMetricsRequest{}); err != nil {
			return err
		}
	}
	resp.PodMetrics = slices.DeleteFunc(resp.GetPodMetrics(), func(p *runtime.PodSandboxMetrics) bool {
		return len(wanted) > 0 && !wanted[p.GetPodSandboxId()]
	})
	if f.output == outputText {
		known, err := client.ListMetricDescriptors(ctx, &runtime.ListMetricDescriptorsRequest{})
		if err != nil {
			return err
		}
		return writeExposition(cli.Out, known.GetDescriptors(), resp.GetPodMetrics(), f.descriptors)
	}
	raw, err := message(resp)
	if err != nil {
		return err
	}
	return writeAs(cli, f.output, "", raw)
}

// writeExposition writes metrics as Prometheus reads them: each name once with
// its help, then all that have it. Those that nothing has are left out, unless
// bare is set.
func writeExposition(to io.Writer, known []*runtime.MetricDescriptor, pods []*runtime.PodSandboxMetrics, bare bool) error {
	byName := map[string][]*runtime.Metric{}
	for _, p := range pods {
		lists := [][]*runtime.Metric{p.GetMetrics()}
		for _, c := range p.GetContainerMetrics() {
			lists = append(lists, c.GetMetrics())
		}
		for _, m := range slices.Concat(lists...) {
			byName[m.GetName()] = append(byName[m.GetName()], m)
		}
	}
	out := bufio.NewWriter(to)
	written := map[string]bool{}
	for _, d := range known {
		metrics := byName[d.GetName()]
		if written[d.GetName()] || len(metrics) == 0 && !bare {
			continue
		}
		written[d.GetName()] = true
		fmt.Fprintf(out, "# HELP %s %s\n", d.GetName(), strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(d.GetHelp()))
		if len(metrics) > 0 {
			fmt.Fprintf(out, "# TYPE %s %s\n", d.GetName(), strings.ToLower(metrics[0].GetMetricType().String()))
		}
		for _, m := range metrics {
			fmt.Fprintf(out, "%s{%s} %d %d\n", m.GetName(), labels(d.GetLabelKeys(), m.GetLabelValues()), m.GetValue().GetValue(), m.GetTimestamp()/1e6)
		}
	}
	return out.Flush()
}

// escaper makes text fit for the value of a label.
var escaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// labels are the names and values of labels as Prometheus reads them.
func labels(keys, values []string) string {
	var all []string
	for i, key := range keys {
		if i < len(values) {
			all = append(all, key+`="`+escaper.Replace(values[i])+`"`)
		}
	}
	return strings.Join(all, ",")
}
