package cri

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CheckpointPod writes checkpoints of all running containers of a pod, all of
// one moment, into a folder; the containers go on.
func (s *Server) CheckpointPod(ctx context.Context, req *runtime.CheckpointPodRequest) (*runtime.CheckpointPodResponse, error) {
	if err := validateCheckpointPod(ctx, req); err != nil {
		return nil, err
	}
	pod, err := s.pod("pod_sandbox_id", req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	if err := s.sandboxes.CheckpointPod(ctx, pod.ID, req.GetOutputPath(), req.GetContainerIds()); err != nil {
		return nil, err
	}
	return &runtime.CheckpointPodResponse{}, nil
}

func validateCheckpointPod(ctx context.Context, req *runtime.CheckpointPodRequest) error {
	if err := validateOptions(req.GetOptions()); err != nil {
		return err
	}
	switch _, bounded := ctx.Deadline(); {
	case !bounded:
		return missing("the call's deadline")
	case req.GetOutputPath() == "":
		return missing("output_path")
	case !path.IsAbs(req.GetOutputPath()):
		return invalid("output_path", fmt.Sprintf("%.200q is not absolute", req.GetOutputPath()))
	case len(req.GetContainerIds()) == 0:
		return missing("container_ids")
	}
	seen := map[string]bool{}
	for i, id := range req.GetContainerIds() {
		field := fmt.Sprintf("container_ids[%d]", i)
		switch {
		case id == "":
			return missing(field)
		case seen[id]:
			return invalid(field, fmt.Sprintf("%.140q is named twice", id))
		}
		seen[id] = true
	}
	return nil
}

// validateOptions refuses options of a checkpoint or a restore: there are none.
func validateOptions(options map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(options)) {
		return invalid("options", fmt.Sprintf("there is no %.140q", name))
	}
	return nil
}
