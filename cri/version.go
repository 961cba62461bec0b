package cri

import (
	"context"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The answers of Version that never change: kubelet refuses any other version
// of its own old API, and any other name of CRI's.
const (
	kubeAPIVersion = "0.1.0"
	criVersion     = "v1"
	runtimeName    = "nodeagent"
)

// Version tells who answers.
func (s *Server) Version(context.Context, *runtime.VersionRequest) (*runtime.VersionResponse, error) {
	return &runtime.VersionResponse{
		Version:           kubeAPIVersion,
		RuntimeName:       runtimeName,
		RuntimeVersion:    s.config.Version,
		RuntimeApiVersion: criVersion,
	}, nil
}
