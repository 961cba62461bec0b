package cri

import (
	"context"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ListPodSandbox tells of the pods that match a filter.
func (s *Server) ListPodSandbox(_ context.Context, req *runtime.ListPodSandboxRequest) (*runtime.ListPodSandboxResponse, error) {
	resp := &runtime.ListPodSandboxResponse{Items: s.podItems(req.GetFilter())}
	s.noteSize("ListPodSandbox", len(resp.Items), resp)
	return resp, nil
}

func (s *Server) podItems(filter *runtime.PodSandboxFilter) []*runtime.PodSandbox {
	pods := filterPods(s.pods(), filter)
	items := make([]*runtime.PodSandbox, len(pods))
	for i := range pods {
		items[i] = podItem(&pods[i])
	}
	return items
}
