package cri

import (
	"context"
	"fmt"
	"time"

	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/sandbox"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PodSandboxStatus tells all of a pod, with the status of its containers as
// kubelet's event-driven loop wants it. A missing pod is NotFound.
func (s *Server) PodSandboxStatus(ctx context.Context, req *runtime.PodSandboxStatusRequest) (*runtime.PodSandboxStatusResponse, error) {
	// Before anything is read: what changes meanwhile is newer than this.
	now := time.Now()
	pod, err := s.pod("pod_sandbox_id", req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	resp := &runtime.PodSandboxStatusResponse{
		Status:             podStatus(&pod),
		ContainersStatuses: s.containerStatuses(ctx, s.sandboxes.PodContainers(pod.ID)),
		Timestamp:          now.UnixNano(),
	}
	if req.GetVerbose() {
		if resp.Info, err = podInfo(&pod); err != nil {
			return nil, fmt.Errorf("get status of pod %s: %w", pod.ID, err)
		}
	}
	return resp, nil
}

// podInfo is what the verbose status adds under "info".
func podInfo(pod *sandbox.Pod) (map[string]string, error) {
	return verbose("info", struct {
		PID              int                       `json:"pid"`
		State            sandbox.PodState          `json:"state"`
		RuntimeHandler   string                    `json:"runtimeHandler"`
		NetworkNamespace string                    `json:"networkNamespace,omitempty"`
		CgroupPath       string                    `json:"cgroupPath"`
		Network          *network.Result           `json:"network,omitempty"`
		Config           *runtime.PodSandboxConfig `json:"config"`
	}{pod.PID, pod.State, pod.Handler, pod.NetNS, pod.CgroupPath, pod.Network, pod.Config})
}
