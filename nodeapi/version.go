package nodeapi

import (
	"context"
	goruntime "runtime"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"golang.org/x/sys/unix"
)

// askTimeout bounds a question to another part for Version and Info.
const askTimeout = 3 * time.Second

// Version tells the versions of the agent and what it runs on.
func (s *system) Version(ctx context.Context, _ *nodev1.VersionRequest) (*nodev1.VersionResponse, error) {
	resp := s.version()
	if s.supervisor != nil {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		// Without a supervisor the rest is still worth telling; Info says why.
		if info, err := s.supervisor.Info(ctx); err == nil {
			resp.SupervisorVersion, resp.RuncVersion = info.Version, info.RuncVersion
		}
	}
	return resp, nil
}

// version is what needs no question.
func (s *Server) version() *nodev1.VersionResponse {
	return &nodev1.VersionResponse{
		Version: s.config.Version, GitCommit: s.config.GitCommit, GoVersion: goruntime.Version(),
		Os: goruntime.GOOS, Arch: goruntime.GOARCH, KernelVersion: kernelVersion(),
	}
}

func kernelVersion() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
