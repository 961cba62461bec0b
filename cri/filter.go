package cri

import (
	"strings"

	"github.com/nodeagent/nodeagent/sandbox"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// completeID returns the ID that prefix is, or is a unique prefix of.
// ok is false when there is none or more than one, and then nothing matches.
func completeID[T any](items []T, idOf func(*T) string, prefix string) (id string, ok bool) {
	found, ambiguous := "", false
	for i := range items {
		candidate := idOf(&items[i])
		if candidate == prefix {
			return candidate, true
		}
		if strings.HasPrefix(candidate, prefix) {
			ambiguous = ambiguous || found != "" && found != candidate
			found = candidate
		}
	}
	return found, found != "" && !ambiguous
}

// matchesLabels tells whether labels hold all that selector asks for.
func matchesLabels(labels, selector map[string]string) bool {
	for key, want := range selector {
		if got, ok := labels[key]; !ok || got != want {
			return false
		}
	}
	return true
}

func podID(p *sandbox.Pod) string              { return p.ID }
func containerID(c *sandbox.Container) string  { return c.ID }
func containerPod(c *sandbox.Container) string { return c.PodID }

// keep returns the items that ok holds for, in their order.
func keep[T any](items []T, ok func(*T) bool) []T {
	kept := items[:0]
	for i := range items {
		if ok(&items[i]) {
			kept = append(kept, items[i])
		}
	}
	return kept
}

// keepID returns the items whose ID is given by a unique prefix; all of them
// when the prefix is empty.
func keepID[T any](items []T, idOf func(*T) string, prefix string) []T {
	if prefix == "" {
		return items
	}
	id, ok := completeID(items, idOf, prefix)
	if !ok {
		return nil
	}
	return keep(items, func(item *T) bool { return idOf(item) == id })
}

// filterPods returns the pods that match all parts of a filter, which may be
// nil. It reuses the slice.
func filterPods(pods []sandbox.Pod, filter *runtime.PodSandboxFilter) []sandbox.Pod {
	if filter == nil {
		return pods
	}
	pods = keepID(pods, podID, filter.GetId())
	return keep(pods, func(p *sandbox.Pod) bool {
		return (filter.GetState() == nil || filter.GetState().GetState() == podState(p.State)) &&
			matchesLabels(p.Config.GetLabels(), filter.GetLabelSelector())
	})
}

// filterContainers returns the containers that match all parts of a filter,
// which may be nil. It reuses the slice.
func filterContainers(ctrs []sandbox.Container, filter *runtime.ContainerFilter) []sandbox.Container {
	if filter == nil {
		return ctrs
	}
	ctrs = keepID(ctrs, containerID, filter.GetId())
	ctrs = keepID(ctrs, containerPod, filter.GetPodSandboxId())
	return keep(ctrs, func(c *sandbox.Container) bool {
		return (filter.GetState() == nil || filter.GetState().GetState() == containerState(c.State)) &&
			matchesLabels(c.Config.GetLabels(), filter.GetLabelSelector())
	})
}

// filterRunning returns the running containers that match a stats filter.
func filterRunning(ctrs []sandbox.Container, filter *runtime.ContainerStatsFilter) []sandbox.Container {
	return filterContainers(ctrs, &runtime.ContainerFilter{
		Id:            filter.GetId(),
		PodSandboxId:  filter.GetPodSandboxId(),
		LabelSelector: filter.GetLabelSelector(),
		State:         &runtime.ContainerStateValue{State: runtime.ContainerState_CONTAINER_RUNNING},
	})
}

// filterReady returns the ready pods that match a stats filter.
func filterReady(pods []sandbox.Pod, filter *runtime.PodSandboxStatsFilter) []sandbox.Pod {
	return filterPods(pods, &runtime.PodSandboxFilter{
		Id:            filter.GetId(),
		LabelSelector: filter.GetLabelSelector(),
		State:         &runtime.PodSandboxStateValue{State: runtime.PodSandboxState_SANDBOX_READY},
	})
}
