package cri

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/nodeagent/nodeagent/sandbox"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
)

// CreateContainer makes a container in a pod without starting it. A repeated
// request joins the one under way.
func (s *Server) CreateContainer(ctx context.Context, req *runtime.CreateContainerRequest) (*runtime.CreateContainerResponse, error) {
	if err := validateContainerConfig("config", req.GetConfig()); err != nil {
		return nil, err
	}
	pod, err := s.pod("pod_sandbox_id", req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	// The pod's configuration in the request is that of RunPodSandbox once more.
	id, err := s.sandboxes.CreateContainer(ctx, sandbox.CreateContainerRequest{
		PodID:  pod.ID,
		Config: req.GetConfig(),
	})
	if errors.Is(err, sandbox.ErrImageVolume) {
		// kubelet knows by the first word that an image volume is to blame.
		return nil, fmt.Errorf("%w: %w", crierrors.ErrImageVolumeMountFailed, err)
	}
	if err != nil {
		return nil, err
	}
	return &runtime.CreateContainerResponse{ContainerId: id}, nil
}

// validateContainerConfig checks what must be there; what it means is for the
// sandbox to judge, which knows pod and image. at is the request's field that
// config is.
func validateContainerConfig(at string, config *runtime.ContainerConfig) error {
	switch {
	case config == nil:
		return missing(at)
	case config.GetMetadata() == nil:
		return missing(at + ".metadata")
	case config.GetMetadata().GetName() == "":
		return missing(at + ".metadata.name")
	case config.GetImage().GetImage() == "":
		return missing(at + ".image.image")
	case path.IsAbs(config.GetImage().GetImage()):
		// Elsewhere that restores an archive, and takes the image from it.
		return invalid(at+".image.image", "is a path; checkpoints are restored by RestorePod")
	}
	for i, mount := range config.GetMounts() {
		if mount.GetContainerPath() == "" {
			return missing(fmt.Sprintf("%s.mounts[%d].container_path", at, i))
		}
	}
	security := config.GetLinux().GetSecurityContext()
	hasUser := security.GetRunAsUser() != nil || security.GetRunAsUsername() != ""
	if security.GetRunAsGroup() != nil && !hasUser {
		return invalid(at+".linux.security_context.run_as_group", "needs run_as_user or run_as_username")
	}
	if security.GetRunAsUser() != nil && security.GetRunAsUsername() != "" {
		return invalid(at+".linux.security_context", "has both run_as_user and run_as_username")
	}
	return nil
}
