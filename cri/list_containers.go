package cri

import (
	"context"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ListContainers tells of the containers that match a filter.
func (s *Server) ListContainers(_ context.Context, req *runtime.ListContainersRequest) (*runtime.ListContainersResponse, error) {
	resp := &runtime.ListContainersResponse{Containers: s.containerItems(req.GetFilter())}
	s.noteSize("ListContainers", len(resp.Containers), resp)
	return resp, nil
}

func (s *Server) containerItems(filter *runtime.ContainerFilter) []*runtime.Container {
	ctrs := filterContainers(s.containers(), filter)
	items := make([]*runtime.Container, len(ctrs))
	for i := range ctrs {
		items[i] = containerItem(&ctrs[i])
	}
	return items
}
