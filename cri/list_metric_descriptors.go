package cri

import (
	"context"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ListMetricDescriptors describes every metric that ListPodSandboxMetrics may
// tell. It never changes while the agent runs.
func (s *Server) ListMetricDescriptors(context.Context, *runtime.ListMetricDescriptorsRequest) (*runtime.ListMetricDescriptorsResponse, error) {
	return &runtime.ListMetricDescriptorsResponse{
		Descriptors: append(descriptors(podMetrics), descriptors(containerMetrics)...),
	}, nil
}
