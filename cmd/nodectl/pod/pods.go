// Package pod holds the commands of nodectl that are about kubelet's pods. They
// speak CRI, as crictl does.
package pod

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/spf13/cobra"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// podsFlags are the flags of pods.
type podsFlags struct {
	quiet, noTrunc, latest, verbose bool
	last                            int
	namespace, format, output       string
	filters                         []string
	// crictl are crictl's own flags for filters, by the filters' names.
	crictl map[string]*[]string
}

// NewPods is `nodectl pods`.
func NewPods(cli *command.CLI) *cobra.Command {
	var flags podsFlags
	cmd := &cobra.Command{
		Use:   "pods [OPTIONS]",
		Short: "List kubelet's pods",
		Args:  command.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return flags.run(cmd.Context(), cli) },
	}
	f := cmd.Flags()
	f.BoolVarP(&flags.quiet, "quiet", "q", false, "Only display pod IDs")
	f.BoolVar(&flags.noTrunc, "no-trunc", false, "Don't truncate output")
	f.BoolVarP(&flags.latest, "latest", "l", false, "Show the latest created pod")
	f.IntVar(&flags.last, "last", 0, "Show n last created pods")
	f.StringVarP(&flags.namespace, "namespace", "n", "", "Show pods of this namespace only")
	f.StringVar(&flags.format, "format", "", `Format output: "table", "table TEMPLATE", "json" or a Go template`)
	f.BoolVarP(&flags.verbose, "verbose", "v", false, "Show all that is known of each pod")
	f.StringVarP(&flags.output, "output", "o", outputTable, `Output format: "table", or "json" or "yaml" as CRI has it`)
	flags.crictl = map[string]*[]string{}
	for _, one := range []struct{ flag, short, filter string }{{"id", "", "id"}, {"name", "", "name"}, {"label", "", "label"}, {"state", "s", "status"}} {
		flags.crictl[one.filter] = f.StringArrayP(one.flag, one.short, nil, "The same as --filter "+one.filter+"=…")
	}
	command.AddFilter(f, &flags.filters, "f", "Filter output based on conditions provided: id, name, namespace, label, status (ready, notready), handler")
	command.Complete(cmd, "namespace", completeNamespaces(cli))
	return cmd
}

func (f *podsFlags) run(ctx context.Context, cli *command.CLI) error {
	filters, err := f.parse()
	if err != nil {
		return err
	}
	client, err := cli.Runtime()
	if err != nil {
		return err
	}
	all, err := list(ctx, client)
	if err != nil {
		return err
	}
	if f.verbose || f.output != outputTable {
		return f.writeWhole(ctx, cli, client, f.choose(all, filters))
	}
	list := format.List{Format: f.format, Header: podsHeader, Default: `{{.ID}}\t{{.Namespace}}\t{{.Pod}}\t{{.Status}}\t{{.Age}}\t{{.IP}}\t{{.Containers}}`}
	if f.quiet {
		list.Format = "{{.ID}}"
	}
	for _, p := range f.choose(all, filters) {
		list.Rows = append(list.Rows, podRow{p: p, whole: f.noTrunc})
	}
	if !f.quiet {
		if err := fill(ctx, client, list.Rows); err != nil {
			return err
		}
	}
	return list.Write(cli.Out)
}

// parse reads the filters, those of crictl's flags among them.
func (f *podsFlags) parse() (command.Filters, error) {
	if err := checkOutput(f.output, outputTable, outputJSON, outputYAML); err != nil {
		return nil, err
	}
	for name, values := range f.crictl {
		for _, value := range *values {
			f.filters = append(f.filters, name+"="+value)
		}
	}
	filters, err := command.ParseFilters(f.filters, "id", "name", "namespace", "label", "status", "handler")
	if err != nil {
		return nil, err
	}
	for _, value := range filters["status"] {
		if !strings.EqualFold(value, "ready") && !strings.EqualFold(value, "notready") {
			return nil, fmt.Errorf("invalid filter 'status=%s'", value)
		}
	}
	if f.latest {
		f.last = 1
	}
	return filters, nil
}

// choose leaves out what was not asked for.
func (f *podsFlags) choose(all []*runtime.PodSandbox, filters command.Filters) []*runtime.PodSandbox {
	var chosen []*runtime.PodSandbox
	for _, p := range all {
		if f.last > 0 && len(chosen) == f.last {
			break
		}
		if (f.namespace == "" || p.GetMetadata().GetNamespace() == f.namespace) && matches(p, filters) {
			chosen = append(chosen, p)
		}
	}
	return chosen
}

// list gives all pods, the newest first.
func list(ctx context.Context, client runtime.RuntimeServiceClient) ([]*runtime.PodSandbox, error) {
	resp, err := client.ListPodSandbox(ctx, &runtime.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	all := resp.GetItems()
	slices.SortStableFunc(all, func(a, b *runtime.PodSandbox) int { return cmp.Compare(b.GetCreatedAt(), a.GetCreatedAt()) })
	return all, nil
}

func matches(p *runtime.PodSandbox, filters command.Filters) bool {
	meta := p.GetMetadata()
	return filters.Any("id", func(v string) bool { return strings.HasPrefix(p.GetId(), v) }) &&
		filters.Any("name", func(v string) bool { return strings.Contains(meta.GetName(), v) }) &&
		filters.Any("namespace", func(v string) bool { return meta.GetNamespace() == v }) &&
		filters.Any("status", func(v string) bool { return strings.EqualFold(v, state(p)) }) &&
		filters.Any("handler", func(v string) bool { return p.GetRuntimeHandler() == v }) &&
		filters.Labels(p.GetLabels())
}

// fill adds to the rows what lists of pods do not have: addresses and
// containers.
func fill(ctx context.Context, client runtime.RuntimeServiceClient, rows []any) error {
	if len(rows) == 0 {
		return nil
	}
	resp, err := client.ListContainers(ctx, &runtime.ListContainersRequest{})
	if err != nil {
		return err
	}
	for i, row := range rows {
		r := row.(podRow)
		for _, c := range resp.GetContainers() {
			if c.GetPodSandboxId() == r.p.GetId() {
				r.containers = append(r.containers, c)
			}
		}
		// One that has just gone has no address.
		if status, err := client.PodSandboxStatus(ctx, &runtime.PodSandboxStatusRequest{PodSandboxId: r.p.GetId()}); err == nil {
			r.network = status.GetStatus().GetNetwork()
		}
		rows[i] = r
	}
	return nil
}

// state is a pod's state in one word.
func state(p *runtime.PodSandbox) string {
	if p.GetState() == runtime.PodSandboxState_SANDBOX_READY {
		return "Ready"
	}
	return "NotReady"
}

// podsHeader are the headers of pods.
var podsHeader = format.Header{
	"ID": "POD ID", "Namespace": "NAMESPACE", "Pod": "POD", "Name": "POD", "Status": "STATUS", "State": "STATE", "Age": "AGE", "CreatedAt": "CREATED AT",
	"IP": "IP", "IPs": "IPS", "Containers": "CONTAINERS", "Attempt": "ATTEMPT", "UID": "UID", "Handler": "RUNTIME", "Labels": "LABELS", "Annotations": "ANNOTATIONS",
}

// podRow is a pod as pods shows it; its methods are the fields of templates.
type podRow struct {
	p          *runtime.PodSandbox
	network    *runtime.PodSandboxNetworkStatus
	containers []*runtime.Container
	whole      bool
}

// ID is the pod's ID, shortened unless asked for whole.
func (r podRow) ID() string { return format.ID(r.p.GetId(), r.whole) }

// Pod is the pod's name, and Name the same.
func (r podRow) Pod() string { return r.p.GetMetadata().GetName() }

// Name is the pod's name.
func (r podRow) Name() string { return r.Pod() }

// Namespace is the pod's.
func (r podRow) Namespace() string { return r.p.GetMetadata().GetNamespace() }

// UID is what Kubernetes tells pods of one name apart by.
func (r podRow) UID() string { return r.p.GetMetadata().GetUid() }

// Attempt counts how often kubelet made it.
func (r podRow) Attempt() uint32 { return r.p.GetMetadata().GetAttempt() }

// Status is "Ready" or "NotReady", and State the same.
func (r podRow) Status() string { return state(r.p) }

// State is "Ready" or "NotReady".
func (r podRow) State() string { return state(r.p) }

// Age is how long ago it was made.
func (r podRow) Age() string { return format.Since(time.Unix(0, r.p.GetCreatedAt())) }

// CreatedAt is when it was made.
func (r podRow) CreatedAt() string { return format.Time(time.Unix(0, r.p.GetCreatedAt())) }

// IP is its first address; that of the machine is not told of.
func (r podRow) IP() string {
	if net.ParseIP(r.network.GetIp()) == nil {
		return ""
	}
	return r.network.GetIp()
}

// IPs are all of its addresses.
func (r podRow) IPs() string {
	all := []string{r.IP()}
	for _, ip := range r.network.GetAdditionalIps() {
		all = append(all, ip.GetIp())
	}
	return strings.Join(all, ",")
}

// Containers says how many of its containers run, of how many.
func (r podRow) Containers() string {
	running := 0
	for _, c := range r.containers {
		if c.GetState() == runtime.ContainerState_CONTAINER_RUNNING {
			running++
		}
	}
	return fmt.Sprintf("%d/%d", running, len(r.containers))
}

// Handler is the runtime handler.
func (r podRow) Handler() string { return r.p.GetRuntimeHandler() }

// Labels are all labels.
func (r podRow) Labels() string { return format.Pairs(r.p.GetLabels(), ",") }

// Annotations are all annotations.
func (r podRow) Annotations() string { return format.Pairs(r.p.GetAnnotations(), ",") }

// Label is the value of one label.
func (r podRow) Label(name string) string { return r.p.GetLabels()[name] }
