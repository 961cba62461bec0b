package server

import (
	"context"
	"os"
	"os/exec"
	"runtime/debug"

	"github.com/opencontainers/runc/libcontainer/apparmor"
	"github.com/opencontainers/runc/libcontainer/seccomp"
	"github.com/opencontainers/selinux/go-selinux"
	"golang.org/x/sys/unix"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
)

// runcModule is the module that libcontainer is part of.
const runcModule = "github.com/opencontainers/runc"

// Info describes the supervisor.
func (s *Server) Info(context.Context, *v1.InfoRequest) (*v1.InfoResponse, error) {
	return &v1.InfoResponse{
		Version:     s.cfg.Version,
		Pid:         int32(os.Getpid()),
		StartedAt:   nanos(s.startedAt),
		RuncVersion: runcVersion(),
		Features:    features(),
	}, nil
}

// runcVersion is the version of libcontainer that was linked.
func runcVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path == runcModule {
			return m.Version
		}
	}
	return ""
}

// features lists what libcontainer can do on this host.
func features() []string {
	_, criu := exec.LookPath("criu")
	// mount_setattr(2) makes both possible, Linux 5.12.
	attr := unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{}) != unix.ENOSYS
	var list []string
	for _, f := range []struct {
		name string
		have bool
	}{
		{"seccomp", seccomp.Enabled},
		{"apparmor", apparmor.IsEnabled()},
		{"selinux", selinux.GetEnabled()},
		{"criu", criu == nil},
		{"recursive-read-only", attr},
		{"idmap", attr},
	} {
		if f.have {
			list = append(list, f.name)
		}
	}
	return list
}
