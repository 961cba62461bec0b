package cri

import (
	"context"
	"fmt"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// statusTimeout bounds what Status asks of each of the other parts: kubelet
// waits for it to tell whether the node is ready.
const statusTimeout = 5 * time.Second

// Status tells whether containers run and pods can be wired, and what the
// runtime handlers can do. Verbose adds "config".
func (s *Server) Status(ctx context.Context, req *runtime.StatusRequest) (*runtime.StatusResponse, error) {
	resp := &runtime.StatusResponse{
		Status: &runtime.RuntimeStatus{Conditions: []*runtime.RuntimeCondition{
			condition(runtime.RuntimeReady, "SupervisorNotReady", ask(ctx, s.ready)),
			condition(runtime.NetworkReady, "NetworkPluginNotReady", ask(ctx, s.network.Status)),
		}},
		RuntimeHandlers: s.runtimeHandlers(),
		Features: &runtime.RuntimeFeatures{
			SupplementalGroupsPolicy:  s.config.Features.SupplementalGroupsPolicy,
			UserNamespacesHostNetwork: s.config.Features.UserNamespacesHostNetwork,
			MountOptions:              s.config.Features.MountOptions,
		},
	}
	if !req.GetVerbose() {
		return resp, nil
	}
	info, err := s.statusInfo()
	if err != nil {
		return nil, fmt.Errorf("get status: %w", err)
	}
	resp.Info = info
	return resp, nil
}

// condition is true when err is nil; else reason and err say why not.
func condition(kind, reason string, err error) *runtime.RuntimeCondition {
	if err == nil {
		return &runtime.RuntimeCondition{Type: kind, Status: true}
	}
	return &runtime.RuntimeCondition{Type: kind, Reason: reason, Message: err.Error()}
}

// ask asks a part whether it is ready; nil is. One that does not answer must
// not take the time of the next.
func ask(ctx context.Context, ready func(context.Context) error) error {
	if ready == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	return ready(ctx)
}

func (s *Server) runtimeHandlers() []*runtime.RuntimeHandler {
	handlers := make([]*runtime.RuntimeHandler, len(s.config.Handlers))
	for i, h := range s.config.Handlers {
		handlers[i] = &runtime.RuntimeHandler{Name: h.Name, Features: &runtime.RuntimeHandlerFeatures{
			RecursiveReadOnlyMounts: h.RecursiveReadOnlyMounts,
			UserNamespaces:          h.UserNamespaces,
		}}
	}
	return handlers
}

// statusInfo has "config" in the words that critest reads: stateDir is where
// it looks whether idmapped mounts work.
func (s *Server) statusInfo() (map[string]string, error) {
	return verbose("config", map[string]any{
		"stateDir": s.config.StateDir, "rootDir": s.config.RootDir, "cgroupDriver": s.config.CgroupDriver,
	})
}
