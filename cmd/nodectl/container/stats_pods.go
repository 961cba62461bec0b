package container

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"google.golang.org/protobuf/types/known/timestamppb"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// podColumns are those of stats --pods.
const podColumns = `{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.PIDs}}`

// podStatsHeader are the headers of stats --pods.
var podStatsHeader = func() format.Header {
	h := maps.Clone(statsHeader)
	h["ID"], h["Name"] = "POD ID", "POD"
	return h
}()

// readPods gives a reader of what kubelet's pods use as a whole.
func readPods(ctx context.Context, cli *command.CLI, names []string) (func(context.Context) (*nodev1.StatsResponse, error), error) {
	client, err := cli.Runtime()
	if err != nil {
		return nil, err
	}
	system, err := cli.System()
	if err != nil {
		return nil, err
	}
	info, err := system.Info(ctx, &nodev1.InfoRequest{})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (*nodev1.StatsResponse, error) {
		resp, err := client.ListPodSandboxStats(ctx, &runtime.ListPodSandboxStatsRequest{})
		if err != nil {
			return nil, err
		}
		out := &nodev1.StatsResponse{}
		for _, p := range resp.GetStats() {
			s := podStats(p, uint64(info.GetMemoryBytes()))
			if len(names) == 0 || slices.ContainsFunc(names, func(n string) bool { return n == s.GetName() || strings.HasPrefix(s.GetId(), n) }) {
				out.Stats = append(out.Stats, s)
			}
		}
		slices.SortFunc(out.Stats, func(a, b *nodev1.Stats) int { return strings.Compare(a.GetName(), b.GetName()) })
		return out, nil
	}, nil
}

// podStats are a pod's figures in the form of a container's. total is the
// node's memory.
func podStats(p *runtime.PodSandboxStats, total uint64) *nodev1.Stats {
	meta, linux := p.GetAttributes().GetMetadata(), p.GetLinux()
	cpu, memory, link := linux.GetCpu(), linux.GetMemory(), linux.GetNetwork().GetDefaultInterface()
	s := &nodev1.Stats{
		Id: p.GetAttributes().GetId(), Name: meta.GetNamespace() + "/" + meta.GetName(), State: "running",
		At: timestamppb.New(time.Unix(0, cpu.GetTimestamp())), CpuNanos: cpu.GetUsageCoreNanoSeconds().GetValue(),
		MemoryBytes: memory.GetWorkingSetBytes().GetValue(), MemoryLimit: total,
		NetworkReceived: link.GetRxBytes().GetValue(), NetworkSent: link.GetTxBytes().GetValue(),
		Pids: linux.GetProcess().GetProcessCount().GetValue(),
	}
	if available := memory.GetAvailableBytes().GetValue(); available > 0 {
		s.MemoryLimit = s.MemoryBytes + available
	}
	return s
}

// expandPods puts the running containers of a pod in place of its name.
func expandPods(ctx context.Context, client nodev1.ContainersClient, names []string) ([]string, error) {
	if !slices.ContainsFunc(names, isPodName) {
		return names, nil
	}
	resp, err := client.List(ctx, &nodev1.ListRequest{Pods: true})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, name := range names {
		found := false
		for _, c := range slices.Backward(resp.GetContainers()) {
			if isPodName(name) && c.GetPod() != nil && inPod(c, name) && c.GetState() == "running" {
				out, found = append(out, c.GetId()), true
			}
		}
		if !found {
			out = append(out, name)
		}
	}
	return out, nil
}

// isPodName knows NAMESPACE/POD.
func isPodName(name string) bool {
	return strings.Count(name, "/") == 1 && !strings.HasPrefix(name, "/")
}
