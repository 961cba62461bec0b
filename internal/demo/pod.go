package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// logName is the container's log file below the pod's log folder.
const logName = "web/0.log"

func (s *show) runPod(ctx context.Context) error {
	s.config = &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: "hello", Uid: "hello-1", Namespace: "demo"},
		Hostname:     "hello",
		LogDirectory: filepath.Join(s.dir, "logs"),
		Linux:        &runtimeapi.LinuxPodSandboxConfig{},
	}
	pod, err := s.agent.runtime().RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: s.config})
	if err != nil {
		return err
	}
	s.pod = pod.PodSandboxId
	answer, err := s.agent.runtime().PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: s.pod})
	if err != nil {
		return err
	}
	s.address = answer.Status.GetNetwork().GetIp()
	s.tell("pod %.12s is %s at %s", s.pod, answer.Status.State, s.address)
	if s.address == "" {
		return errors.New("the pod has no address")
	}
	return nil
}

func (s *show) removePod(ctx context.Context) error {
	if s.pod == "" {
		return nil
	}
	s.say("Stop and remove the pod")
	runtime := s.agent.runtime()
	if _, err := runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.pod}); err != nil {
		return fmt.Errorf("stop the pod: %w", err)
	}
	if _, err := runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.pod}); err != nil {
		return fmt.Errorf("remove the pod: %w", err)
	}
	return nil
}

func (s *show) startContainer(ctx context.Context) error {
	runtime := s.agent.runtime()
	created, err := runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: s.pod,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "web"},
			Image:    &runtimeapi.ImageSpec{Image: s.registry.ref},
			LogPath:  logName,
			Linux:    &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}},
		},
		SandboxConfig: s.config,
	})
	if err != nil {
		return err
	}
	if _, err := runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		return err
	}
	answer, err := runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: created.ContainerId})
	if err != nil {
		return err
	}
	status := answer.Status
	shown, err := json.MarshalIndent(map[string]any{
		"id": status.Id, "name": status.Metadata.GetName(), "state": status.State.String(), "image": status.Image.GetImage(),
		"logPath": status.LogPath, "memoryLimit": status.Resources.GetLinux().GetMemoryLimitInBytes(),
	}, "", "  ")
	s.tell("%s", shown)
	return err
}
