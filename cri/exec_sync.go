package cri

import (
	"context"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxExecOutput is what both streams of an ExecSync answer may take together,
// in bytes, so that kubelet, which reads 16 MiB, can read it.
const maxExecOutput = 16<<20 - 4096

// ExecSync runs a command in a container. A command that ends by itself is no
// error whatever its exit code; one that outlives the timeout is killed and is
// DeadlineExceeded, which kubelet takes for a probe's timeout.
func (s *Server) ExecSync(ctx context.Context, req *runtime.ExecSyncRequest) (*runtime.ExecSyncResponse, error) {
	if len(req.GetCmd()) == 0 {
		return nil, missing("cmd")
	}
	timeout, err := seconds("timeout", req.GetTimeout())
	if err != nil {
		return nil, err
	}
	ctr, err := s.running("execute in", req.GetContainerId())
	if err != nil {
		return nil, err
	}
	result, err := s.sandboxes.ExecSync(ctx, ctr.ID, req.GetCmd(), timeout)
	if err != nil {
		return nil, err
	}
	stdout, stderr := cutOutput(result.Stdout, result.Stderr)
	return &runtime.ExecSyncResponse{Stdout: stdout, Stderr: stderr, ExitCode: int32(result.ExitCode)}, nil
}

// cutOutput shortens the longer stream first, and each to no less than half of
// what both may take.
func cutOutput(stdout, stderr []byte) (out, err []byte) {
	const half = maxExecOutput / 2
	switch {
	case len(stdout)+len(stderr) <= maxExecOutput:
		return stdout, stderr
	case len(stderr) <= half:
		return stdout[:maxExecOutput-len(stderr)], stderr
	case len(stdout) <= half:
		return stdout, stderr[:maxExecOutput-len(stdout)]
	default:
		return stdout[:half], stderr[:half]
	}
}
