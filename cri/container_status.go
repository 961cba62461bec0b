package cri

import (
	"context"
	"fmt"

	"github.com/nodeagent/nodeagent/sandbox"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ContainerStatus tells all of a container. A missing one is NotFound.
func (s *Server) ContainerStatus(ctx context.Context, req *runtime.ContainerStatusRequest) (*runtime.ContainerStatusResponse, error) {
	ctr, err := s.container(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	resp := &runtime.ContainerStatusResponse{Status: s.containerStatus(ctx, &ctr)}
	if req.GetVerbose() {
		if resp.Info, err = containerInfo(&ctr); err != nil {
			return nil, fmt.Errorf("get status of container %s: %w", ctr.ID, err)
		}
	}
	return resp, nil
}

// containerInfo is what the verbose status adds under "info".
func containerInfo(ctr *sandbox.Container) (map[string]string, error) {
	return verbose("info", struct {
		SandboxID   string                   `json:"sandboxID"`
		PID         int                      `json:"pid"`
		State       sandbox.ContainerState   `json:"state"`
		SnapshotKey string                   `json:"snapshotKey"`
		Rootfs      string                   `json:"rootfs"`
		CgroupPath  string                   `json:"cgroupPath"`
		Args        []string                 `json:"args"`
		Env         []string                 `json:"env"`
		WorkingDir  string                   `json:"workingDir"`
		Config      *runtime.ContainerConfig `json:"config"`
	}{
		ctr.PodID, ctr.PID, ctr.State, ctr.SnapshotKey, ctr.Rootfs, ctr.CgroupPath,
		ctr.Args, ctr.Env, ctr.WorkingDir, ctr.Config,
	})
}
