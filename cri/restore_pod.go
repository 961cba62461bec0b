package cri

import (
	"context"
	"fmt"
	"path"

	"github.com/nodeagent/nodeagent/sandbox"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RestorePod makes a pod and containers that StartContainer lets go on where
// CheckpointPod found them.
func (s *Server) RestorePod(ctx context.Context, req *runtime.RestorePodRequest) (*runtime.RestorePodResponse, error) {
	if err := s.validateRestorePod(ctx, req); err != nil {
		return nil, err
	}
	podID, ids, err := s.sandboxes.RestorePod(ctx, sandbox.RestorePodRequest{
		Path:       req.GetCheckpointPath(),
		Config:     req.GetConfig(),
		Handler:    req.GetRuntimeHandler(),
		Owner:      sandbox.OwnerCRI,
		Containers: req.GetContainerConfigs(),
	})
	if err != nil {
		return nil, err
	}
	resp := &runtime.RestorePodResponse{PodSandboxId: podID}
	for _, config := range req.GetContainerConfigs() {
		name := config.GetMetadata().GetName()
		resp.RestoredContainers = append(resp.RestoredContainers, &runtime.RestoredContainer{Name: name, ContainerId: ids[name]})
	}
	return resp, nil
}

func (s *Server) validateRestorePod(ctx context.Context, req *runtime.RestorePodRequest) error {
	if err := validateOptions(req.GetOptions()); err != nil {
		return err
	}
	switch _, bounded := ctx.Deadline(); {
	case !bounded:
		return missing("the call's deadline")
	case req.GetCheckpointPath() == "":
		return missing("checkpoint_path")
	case !path.IsAbs(req.GetCheckpointPath()):
		return invalid("checkpoint_path", fmt.Sprintf("%.200q is not absolute", req.GetCheckpointPath()))
	case !s.knowsHandler(req.GetRuntimeHandler()):
		return invalid("runtime_handler", fmt.Sprintf("there is no %q", req.GetRuntimeHandler()))
	case len(req.GetContainerConfigs()) == 0:
		return missing("container_configs")
	}
	if err := validatePodConfig(req.GetConfig()); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i, config := range req.GetContainerConfigs() {
		at := fmt.Sprintf("container_configs[%d]", i)
		if err := validateContainerConfig(at, config); err != nil {
			return err
		}
		name := config.GetMetadata().GetName()
		if seen[name] {
			return invalid(at+".metadata.name", fmt.Sprintf("%.140q repeats", name))
		}
		seen[name] = true
	}
	return nil
}
