package cri

import (
	"context"
	"fmt"

	"github.com/nodeagent/nodeagent/sandbox"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RunPodSandbox makes a pod. A repeated request joins the one under way.
func (s *Server) RunPodSandbox(ctx context.Context, req *runtime.RunPodSandboxRequest) (*runtime.RunPodSandboxResponse, error) {
	if err := validatePodConfig(req.GetConfig()); err != nil {
		return nil, err
	}
	if !s.knowsHandler(req.GetRuntimeHandler()) {
		return nil, invalid("runtime_handler", fmt.Sprintf("there is no %q", req.GetRuntimeHandler()))
	}
	id, err := s.sandboxes.RunPod(ctx, sandbox.RunPodRequest{
		Config:  req.GetConfig(),
		Handler: req.GetRuntimeHandler(),
		Owner:   sandbox.OwnerCRI,
	})
	if err != nil {
		return nil, err
	}
	return &runtime.RunPodSandboxResponse{PodSandboxId: id}, nil
}

// validatePodConfig refuses what kubelet could not work with: it looks a pod up
// by name, namespace and UID, and takes a status without them for an error.
func validatePodConfig(config *runtime.PodSandboxConfig) error {
	metadata := config.GetMetadata()
	switch {
	case config == nil:
		return missing("config")
	case metadata == nil:
		return missing("config.metadata")
	case metadata.GetName() == "":
		return missing("config.metadata.name")
	case metadata.GetNamespace() == "":
		return missing("config.metadata.namespace")
	case metadata.GetUid() == "":
		return missing("config.metadata.uid")
	}
	security := config.GetLinux().GetSecurityContext()
	if security.GetRunAsGroup() != nil && security.GetRunAsUser() == nil {
		return invalid("config.linux.security_context.run_as_group", "needs run_as_user")
	}
	for i, port := range config.GetPortMappings() {
		if err := validatePort(port); err != nil {
			return fmt.Errorf("config.port_mappings[%d].%w", i, err)
		}
	}
	return nil
}

func validatePort(port *runtime.PortMapping) error {
	if port.GetContainerPort() < 0 || port.GetContainerPort() > maxPort {
		return invalid("container_port", fmt.Sprintf("%d is no port", port.GetContainerPort()))
	}
	if port.GetHostPort() < 0 || port.GetHostPort() > maxPort {
		return invalid("host_port", fmt.Sprintf("%d is no port", port.GetHostPort()))
	}
	if port.GetHostPort() > 0 && port.GetContainerPort() == 0 {
		return missing("container_port")
	}
	return nil
}

// maxPort is the highest port number.
const maxPort = 65535
