package cri

import (
	"context"

	"github.com/nodeagent/nodeagent/cri/stream"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Exec prepares a command in a container and returns where to stream it.
func (s *Server) Exec(_ context.Context, req *runtime.ExecRequest) (*runtime.ExecResponse, error) {
	if len(req.GetCmd()) == 0 {
		return nil, missing("cmd")
	}
	wanted := stream.Wanted{Stdin: req.GetStdin(), Stdout: req.GetStdout(), Stderr: req.GetStderr(), TTY: req.GetTty()}
	if err := validateStreams(wanted); err != nil {
		return nil, err
	}
	ctr, err := s.running("execute in", req.GetContainerId())
	if err != nil {
		return nil, err
	}
	url, err := s.streams.Exec(ctr.ID, req.GetCmd(), wanted)
	if err != nil {
		return nil, err
	}
	return &runtime.ExecResponse{Url: url}, nil
}

// validateStreams refuses what cannot be streamed: a terminal has one output.
func validateStreams(wanted stream.Wanted) error {
	if wanted.TTY && wanted.Stderr {
		return invalid("stderr", "cannot be had apart with tty")
	}
	if !wanted.Stdin && !wanted.Stdout && !wanted.Stderr {
		return missing("stdin, stdout or stderr")
	}
	return nil
}
