package cri

import (
	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// StreamPodSandboxMetrics is ListPodSandboxMetrics in parts.
func (s *Server) StreamPodSandboxMetrics(_ *runtime.StreamPodSandboxMetricsRequest, out grpc.ServerStreamingServer[runtime.StreamPodSandboxMetricsResponse]) error {
	items, err := s.podMetrics(out.Context())
	if err != nil {
		return err
	}
	return sendChunks(items, func(chunk []*runtime.PodSandboxMetrics) error {
		return out.Send(&runtime.StreamPodSandboxMetricsResponse{PodSandboxMetrics: chunk})
	})
}
