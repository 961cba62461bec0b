package cri

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/sandbox"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ListPodSandboxMetrics tells the metrics of all ready pods and their running
// containers, read now.
func (s *Server) ListPodSandboxMetrics(ctx context.Context, _ *runtime.ListPodSandboxMetricsRequest) (*runtime.ListPodSandboxMetricsResponse, error) {
	metrics, err := s.podMetrics(ctx)
	if err != nil {
		return nil, err
	}
	return &runtime.ListPodSandboxMetricsResponse{PodMetrics: metrics}, nil
}

func (s *Server) podMetrics(ctx context.Context) ([]*runtime.PodSandboxMetrics, error) {
	running := map[string][]sandbox.Container{}
	for _, ctr := range filterRunning(s.containers(), nil) {
		running[ctr.PodID] = append(running[ctr.PodID], ctr)
	}
	return gather(ctx, s.log, filterReady(s.pods(), nil), func(ctx context.Context, pod *sandbox.Pod) (*runtime.PodSandboxMetrics, error) {
		return s.metricsOf(ctx, pod, running[pod.ID])
	})
}

// noContainer stands for the container in the labels of what belongs to the
// pod as a whole, as with cAdvisor.
const noContainer = "POD"

// metricsOf reads a pod and then each of its running containers.
func (s *Server) metricsOf(ctx context.Context, pod *sandbox.Pod, ctrs []sandbox.Container) (*runtime.PodSandboxMetrics, error) {
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	detail, err := s.sandboxes.PodDetail(ctx, pod.ID)
	if err != nil {
		return nil, err
	}
	name, namespace := pod.Config.GetMetadata().GetName(), pod.Config.GetMetadata().GetNamespace()
	metrics := &runtime.PodSandboxMetrics{
		PodSandboxId: pod.ID,
		Metrics:      readMetrics(podMetrics, detail, detail.At, []string{name, namespace, noContainer, pod.ID, "", pod.ID}),
	}
	for i := range ctrs {
		ctr := &ctrs[i]
		detail, err := s.sandboxes.ContainerDetail(ctx, ctr.ID)
		if err != nil {
			// The others count.
			if !errdefs.IsNotFound(err) {
				s.log.WithError(err).Debugf("metrics of container %s", ctr.ID)
			}
			continue
		}
		image, _ := s.imageOf(ctx, ctr)
		subject := &containerSubject{ContainerDetail: detail, ctr: ctr}
		metrics.ContainerMetrics = append(metrics.ContainerMetrics, &runtime.ContainerMetrics{
			ContainerId: ctr.ID,
			Metrics: readMetrics(containerMetrics, subject, detail.Cgroup.At,
				[]string{name, namespace, ctr.Config.GetMetadata().GetName(), ctr.ID, image, ctr.ID}),
		})
	}
	return metrics, nil
}
