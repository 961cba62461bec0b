package pod

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// writeWhole writes all that is known of pods: in CRI's names, or in words.
func (f *podsFlags) writeWhole(ctx context.Context, cli *command.CLI, client runtime.RuntimeServiceClient, pods []*runtime.PodSandbox) error {
	if f.output != outputTable {
		raw, err := message(&runtime.ListPodSandboxResponse{Items: pods})
		if err != nil {
			return err
		}
		return writeAs(cli, f.output, "", raw)
	}
	for _, p := range pods {
		rows := []any{podRow{p: p, whole: true}}
		if err := fill(ctx, client, rows); err != nil {
			return err
		}
		writeWords(cli.Out, rows[0].(podRow))
	}
	return nil
}

// writeWords writes a pod as crictl does.
func writeWords(out io.Writer, r podRow) {
	for _, one := range []struct{ name, value string }{
		{"ID", r.ID()}, {"Name", r.Name()}, {"UID", r.UID()}, {"Namespace", r.Namespace()}, {"Attempt", fmt.Sprint(r.Attempt())},
		{"Status", r.Status()}, {"Created", time.Unix(0, r.p.GetCreatedAt()).String()}, {"IP", r.IPs()}, {"Containers", r.Containers()},
	} {
		if one.value != "" && one.value != "0" {
			fmt.Fprintf(out, "%s: %s\n", one.name, one.value)
		}
	}
	for _, one := range []struct {
		name   string
		values map[string]string
	}{{"Labels", r.p.GetLabels()}, {"Annotations", r.p.GetAnnotations()}} {
		if len(one.values) == 0 {
			continue
		}
		fmt.Fprintln(out, one.name+":")
		for _, key := range slices.Sorted(maps.Keys(one.values)) {
			fmt.Fprintf(out, "\t%s -> %s\n", key, one.values[key])
		}
	}
	if r.Handler() != "" {
		fmt.Fprintln(out, "Runtime: "+r.Handler())
	}
	fmt.Fprintln(out)
}
