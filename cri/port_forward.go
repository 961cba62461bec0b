package cri

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/sandbox"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PortForward returns where to stream connections to ports of a pod. Ports may
// be named now, which WebSocket clients need, or with each stream.
func (s *Server) PortForward(_ context.Context, req *runtime.PortForwardRequest) (*runtime.PortForwardResponse, error) {
	for i, port := range req.GetPort() {
		if port < 1 || port > maxPort {
			return nil, invalid(fmt.Sprintf("port[%d]", i), fmt.Sprintf("%d is no port", port))
		}
	}
	pod, err := s.pod("pod_sandbox_id", req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	if pod.State != sandbox.PodReady {
		return nil, fmt.Errorf("forward ports of pod %s: it is %s, not ready: %w", pod.ID, pod.State, errdefs.ErrFailedPrecondition)
	}
	url, err := s.streams.PortForward(pod.ID, req.GetPort())
	if err != nil {
		return nil, err
	}
	return &runtime.PortForwardResponse{Url: url}, nil
}
