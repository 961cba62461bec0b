package cri

import (
	"context"

	"github.com/nodeagent/nodeagent/cri/stream"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Attach returns where to stream the standard streams of a running container.
func (s *Server) Attach(_ context.Context, req *runtime.AttachRequest) (*runtime.AttachResponse, error) {
	wanted := stream.Wanted{Stdin: req.GetStdin(), Stdout: req.GetStdout(), Stderr: req.GetStderr(), TTY: req.GetTty()}
	if err := validateStreams(wanted); err != nil {
		return nil, err
	}
	ctr, err := s.running("attach to", req.GetContainerId())
	if err != nil {
		return nil, err
	}
	url, err := s.streams.Attach(ctr.ID, wanted)
	if err != nil {
		return nil, err
	}
	return &runtime.AttachResponse{Url: url}, nil
}
