package nodeapi

import (
	"bufio"
	"context"
	"io"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	"golang.org/x/sys/unix"
)

// Info tells of the agent and its node.
func (s *system) Info(ctx context.Context, _ *nodev1.InfoRequest) (*nodev1.InfoResponse, error) {
	resp := &nodev1.InfoResponse{
		Version: s.version(), Snapshotter: s.config.Snapshotter,
		RootDir: s.config.AgentRoot, StateDir: s.config.AgentState,
		CgroupDriver: s.config.CgroupDriver, CgroupVersion: s.config.CgroupVersion,
		OperatingSystem: operatingSystem("/etc/os-release"), Cpus: int64(goruntime.NumCPU()),
		MemoryBytes: totalMemory(), NetworkReady: true,
		Warnings: append([]string(nil), s.config.Warnings...),
	}
	resp.Hostname, _ = os.Hostname()
	s.count(resp)
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := s.askImages(ctx, resp); err != nil {
		return nil, err
	}
	s.askParts(ctx, resp)
	return resp, nil
}

// count counts pods and containers.
func (s *Server) count(resp *nodev1.InfoResponse) {
	for _, pod := range s.sandboxes.Pods() {
		if pod.Owner == sandbox.OwnerCRI {
			resp.Pods++
		}
	}
	for _, c := range s.sandboxes.Containers() {
		resp.Containers++
		switch c.State {
		case sandbox.ContainerRunning:
			resp.Running++
		case sandbox.ContainerPaused:
			resp.Paused++
		default:
			resp.Stopped++
		}
	}
}

// askImages counts images and what they take.
func (s *Server) askImages(ctx context.Context, resp *nodev1.InfoResponse) error {
	all, err := s.images.Images(ctx)
	if err != nil {
		return err
	}
	resp.Images = int64(len(all))
	usage, err := s.images.FilesystemUsage(ctx)
	if err != nil {
		resp.Warnings = append(resp.Warnings, "image file system: "+err.Error())
		return nil
	}
	resp.ImageBytes, resp.ImageFilesystem = usage.Bytes, usage.Mountpoint
	return nil
}

// askParts asks the supervisor and the network how they are.
func (s *Server) askParts(ctx context.Context, resp *nodev1.InfoResponse) {
	if s.network != nil {
		if err := s.network.Status(ctx); err != nil {
			resp.NetworkReady, resp.NetworkProblem = false, err.Error()
			resp.Warnings = append(resp.Warnings, "network is not ready: "+err.Error())
		}
	}
	if s.supervisor == nil {
		return
	}
	info, err := s.supervisor.Info(ctx)
	if err != nil {
		resp.SupervisorProblem = err.Error()
		resp.Warnings = append(resp.Warnings, "supervisor does not answer: "+err.Error())
		return
	}
	resp.Version.SupervisorVersion, resp.Version.RuncVersion = info.Version, info.RuncVersion
	resp.SupervisorPid, resp.SupervisorStartedAt = int64(info.PID), timestamp(info.StartedAt)
	resp.Features = info.Features
}

// operatingSystem reads the pretty name of os-release(5).
func operatingSystem(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return goruntime.GOOS
	}
	defer f.Close()
	scanner := bufio.NewScanner(io.LimitReader(f, 64<<10))
	for scanner.Scan() {
		value, ok := strings.CutPrefix(scanner.Text(), "PRETTY_NAME=")
		if !ok {
			continue
		}
		if plain, err := strconv.Unquote(value); err == nil {
			return plain
		}
		return strings.Trim(value, "'")
	}
	return goruntime.GOOS
}

// totalMemory is the node's memory in bytes; zero when it is not known.
func totalMemory() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit)
}
