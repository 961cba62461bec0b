package container

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/nodeagent/nodeagent/cmd/nodectl/terminal"
	"github.com/spf13/cobra"
)

// psFlags are the flags of ps.
type psFlags struct {
	all, quiet, latest, noTrunc, pods bool
	size                              bool
	last                              int
	pod, namespace, format            string
	filters                           []string
	// bySight shows kubelet's containers to a person who did not ask.
	bySight bool
}

// plain says that nothing was asked for but a table of what there is: no
// script's form, and no choice by age.
func (f *psFlags) plain() bool {
	return !f.quiet && f.format == "" && !f.latest && f.last <= 0
}

// NewPs is `nodectl ps`.
func NewPs(cli *command.CLI) *cobra.Command {
	var flags psFlags
	cmd := &cobra.Command{
		Use:     "ps [OPTIONS]",
		Aliases: []string{"ls", "list"},
		Short:   "List containers",
		Args:    command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			flags.bySight = !cmd.Flags().Changed("pods") && flags.plain() && terminal.Is(cli.Out)
			return flags.run(cmd.Context(), cli)
		},
	}
	flags.last = -1
	f := cmd.Flags()
	f.BoolVarP(&flags.all, "all", "a", false, "Show all containers (default shows just running)")
	f.BoolVarP(&flags.quiet, "quiet", "q", false, "Only display container IDs")
	f.BoolVarP(&flags.latest, "latest", "l", false, "Show the latest created container (includes all states)")
	f.BoolVarP(&flags.size, "size", "s", false, "Display total file sizes")
	f.BoolVar(&flags.noTrunc, "no-trunc", false, "Don't truncate output")
	f.VarP(lastOrNamespace{&flags}, "last", "n", "Show n last created containers (includes all states), or the containers of a namespace of Kubernetes")
	f.BoolVar(&flags.pods, "pods", false, "Show kubelet's containers too, with their pods (default on a terminal)")
	f.StringVar(&flags.pod, "pod", "", "Show the containers of one of kubelet's pods only, by NAME, NAMESPACE/NAME or ID")
	f.StringVar(&flags.namespace, "namespace", "", "Show kubelet's containers of this namespace only")
	f.StringVar(&flags.format, "format", "", `Format output: "table", "table TEMPLATE", "json" or a Go template`)
	command.AddFilter(f, &flags.filters, "f", "Filter output based on conditions provided")
	return cmd
}

// lastOrNamespace is -n: docker's number, or a namespace, which is a word.
type lastOrNamespace struct {
	flags *psFlags
}

// String is the default, which is neither.
func (v lastOrNamespace) String() string { return "" }

// Type is shown in the help.
func (v lastOrNamespace) Type() string { return "int|namespace" }

// Set takes a value.
func (v lastOrNamespace) Set(text string) error {
	if n, err := strconv.Atoi(text); err == nil {
		v.flags.last = n
	} else {
		v.flags.namespace = text
	}
	return nil
}

func (f *psFlags) run(ctx context.Context, cli *command.CLI) error {
	filters, err := command.ParseFilters(f.filters, "id", "name", "label", "status", "ancestor", "exited", "before", "since", "network",
		"volume", "publish", "expose", "health", "is-task", "isolation")
	if err != nil {
		return err
	}
	client, err := cli.Containers()
	if err != nil {
		return err
	}
	if f.format == "" && !f.quiet {
		f.format = cli.DockerConfig().PsFormat
		f.bySight = f.bySight && f.format == ""
	}
	f.pods = f.pods || f.bySight || f.namespace != "" || f.pod != ""
	resp, err := client.List(ctx, &nodev1.ListRequest{Pods: f.pods, Sizes: f.size || strings.Contains(f.format, ".Size")})
	if err != nil {
		return err
	}
	chosen, err := f.choose(resp.GetContainers(), filters)
	if err != nil {
		return err
	}
	list := format.List{Format: f.format, Header: psHeader, Default: `{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}`}
	if f.size {
		list.Default += `\t{{.Size}}`
	}
	if f.pods && (!f.bySight || slices.ContainsFunc(chosen, func(c *nodev1.Container) bool { return c.GetPod() != nil })) {
		list.Default += `\t{{.Pod}}\t{{.Namespace}}`
	}
	if f.quiet {
		// A table has its IDs shortened and no header.
		list.Format = "{{.ID}}"
	}
	for _, c := range chosen {
		list.Rows = append(list.Rows, psRow{c: c, whole: f.noTrunc})
	}
	return list.Write(cli.Out)
}

// choose leaves out what was not asked for. Containers are newest first.
func (f *psFlags) choose(all []*nodev1.Container, filters command.Filters) ([]*nodev1.Container, error) {
	match, err := newMatcher(all, filters)
	if err != nil {
		return nil, err
	}
	limit := f.last
	if f.latest {
		limit = 1
	}
	everyState := f.all || limit > 0 || len(filters["status"]) > 0 || len(filters["exited"]) > 0
	var out []*nodev1.Container
	for _, c := range all {
		if limit > 0 && len(out) == limit {
			break
		}
		if (Live(c) || everyState) && (f.namespace == "" || c.GetPod().GetNamespace() == f.namespace) && inPod(c, f.pod) && match.all(c) {
			out = append(out, c)
		}
	}
	return out, nil
}

// Live says whether a container runs, or will again by itself.
func Live(c *nodev1.Container) bool {
	return c.GetState() == "running" || c.GetState() == "paused" || c.GetState() == "restarting"
}

// inPod says whether a container is in the pod that a person named; no name
// is all.
func inPod(c *nodev1.Container, name string) bool {
	pod := c.GetPod()
	return name == "" || pod.GetName() == name || pod.GetNamespace()+"/"+pod.GetName() == name || strings.HasPrefix(pod.GetId(), name)
}

// psHeader are the headers of ps.
var psHeader = format.Header{
	"ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "RunningFor": "CREATED", "CreatedAt": "CREATED AT",
	"Status": "STATUS", "State": "STATE", "Ports": "PORTS", "Names": "NAMES", "Labels": "LABELS", "Mounts": "MOUNTS",
	"Size": "SIZE", "Platform": "PLATFORM", "LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "Pod": "POD", "Namespace": "NAMESPACE",
}

// psRow is a container as ps shows it; its methods are the fields of templates.
type psRow struct {
	c     *nodev1.Container
	whole bool
}

// ID is the container's ID, shortened unless asked for whole.
func (r psRow) ID() string { return format.ID(r.c.GetId(), r.whole) }

// Names is the container's name.
func (r psRow) Names() string { return r.c.GetName() }

// Image is what the container was made of.
func (r psRow) Image() string {
	switch {
	case r.c.GetImage() == "":
		return "<no image>"
	case r.whole:
		return r.c.GetImage()
	case r.c.GetImage() == r.c.GetImageId() || strings.HasPrefix(r.c.GetImage(), "sha256:"):
		return format.ID(r.c.GetImage(), false)
	}
	return shortImage(r.c.GetImage())
}

// Command is what runs, in quotes.
func (r psRow) Command() string {
	var words []string
	for _, arg := range r.c.GetArgs() {
		if strings.Contains(arg, " ") {
			arg = "'" + arg + "'"
		}
		words = append(words, arg)
	}
	text := strings.Join(words, " ")
	if !r.whole {
		text = format.Ellipsis(text, 20)
	}
	return strconv.Quote(text)
}

// CreatedAt is when it was made.
func (r psRow) CreatedAt() string {
	return format.Time(r.c.GetCreatedAt().AsTime())
}

// RunningFor is how long ago it was made.
func (r psRow) RunningFor() string { return format.Ago(r.c.GetCreatedAt().AsTime()) }

// State is one word.
func (r psRow) State() string { return r.c.GetState() }

// Status is the state in words.
func (r psRow) Status() string {
	switch r.c.GetState() {
	case "running":
		return "Up " + format.Since(r.c.GetStartedAt().AsTime()) + r.health()
	case "restarting":
		return fmt.Sprintf("Restarting (%d) %s", r.c.GetExitCode(), format.Ago(r.c.GetFinishedAt().AsTime()))
	case "paused":
		return "Up " + format.Since(r.c.GetStartedAt().AsTime()) + " (Paused)"
	case "exited":
		return fmt.Sprintf("Exited (%d) %s", r.c.GetExitCode(), format.Ago(r.c.GetFinishedAt().AsTime()))
	case "created":
		return "Created"
	}
	return "Unknown"
}

// health is what the status says of it.
func (r psRow) health() string {
	switch r.c.GetHealth() {
	case "":
		return ""
	case "starting":
		return " (health: starting)"
	}
	return " (" + r.c.GetHealth() + ")"
}

// Size is what the container's own layer takes, and with its image's.
func (r psRow) Size() string {
	if r.c.GetSizeRootFs() == 0 {
		return format.Size(r.c.GetSizeRw()) // nobody asked for it
	}
	return fmt.Sprintf("%s (virtual %s)", format.Size(r.c.GetSizeRw()), format.Size(r.c.GetSizeRootFs()))
}

// LocalVolumes is how many volumes are mounted.
func (r psRow) LocalVolumes() string {
	n := 0
	for _, m := range r.c.GetMounts() {
		if m.GetType() == nodev1.Mount_VOLUME {
			n++
		}
	}
	return strconv.Itoa(n)
}

// Platform is what its image is for; empty once the image is gone.
func (r psRow) Platform() string { return r.c.GetPlatform() }

// Ports are the ports, published and exposed, of a running container.
func (r psRow) Ports() string {
	return displayPorts(portsOf(r.c))
}

// Labels are all labels.
func (r psRow) Labels() string { return format.Pairs(r.c.GetLabels(), ",") }

// Label is the value of one label.
func (r psRow) Label(name string) string { return r.c.GetLabels()[name] }

// Mounts are the sources of all mounts.
func (r psRow) Mounts() string {
	var all []string
	for _, m := range r.c.GetMounts() {
		if m.GetType() == nodev1.Mount_TMPFS {
			continue
		}
		source := m.GetSource()
		if !r.whole {
			source = format.Ellipsis(source, 15)
		}
		all = append(all, source)
	}
	return strings.Join(all, ",")
}

// Networks are the networks' names.
func (r psRow) Networks() string {
	if len(r.c.GetNetworks()) == 0 {
		return r.c.GetNetworkMode()
	}
	return strings.Join(r.c.GetNetworks(), ",")
}

// Pod is the pod of kubelet's containers.
func (r psRow) Pod() string { return r.c.GetPod().GetName() }

// Namespace is that pod's namespace.
func (r psRow) Namespace() string { return r.c.GetPod().GetNamespace() }
