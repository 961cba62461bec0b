package server

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
	"github.com/nodeagent/nodeagent/supervisor/server/owncgroup"
	"github.com/nodeagent/nodeagent/supervisor/server/pidfd"
	"github.com/nodeagent/nodeagent/supervisor/server/podinit"
)

// podInit is the first process of a pod's PID namespace.
type podInit struct {
	// ready is closed once the start ended, well or not.
	ready chan struct{}
	// proc is nil when the start failed. gone is closed when the process
	// ended.
	proc *pidfd.Process
	gone chan struct{}
}

// podInitRecord is what the next supervisor must know of it.
type podInitRecord struct {
	ID        string `json:"id"`
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"`
}

// StartPodInit starts a pod's first process, or returns the one that runs.
func (s *Server) StartPodInit(ctx context.Context, req *v1.StartPodInitRequest) (*v1.StartPodInitResponse, error) {
	if err := validateID("pod", req.Id); err != nil {
		return nil, fmt.Errorf("start pod init: %w", err)
	}
	p, mine := s.reservePodInit(req.Id)
	if p == nil {
		return nil, fmt.Errorf("start pod init %s: supervisor is shutting down: %w", req.Id, errdefs.ErrUnavailable)
	}
	if !mine {
		select {
		case <-p.ready:
		case <-ctx.Done():
			return nil, fmt.Errorf("start pod init %s: wait for its start: %w", req.Id, ctx.Err())
		}
		if p.proc == nil {
			return nil, fmt.Errorf("start pod init %s: an earlier start failed: %w", req.Id, errdefs.ErrUnavailable)
		}
		return &v1.StartPodInitResponse{Pid: int32(p.proc.PID())}, nil
	}
	proc, err := s.startPodInit(ctx, req)
	if err != nil {
		s.forgetPodInit(req.Id)
		close(p.ready)
		return nil, fmt.Errorf("start pod init %s: %w", req.Id, err)
	}
	p.proc = proc
	close(p.ready)
	go s.watchPodInit(req.Id, p)
	return &v1.StartPodInitResponse{Pid: int32(proc.PID())}, nil
}

// reservePodInit returns the entry of a pod, and whether the caller made it;
// nil when the supervisor ends.
func (s *Server) reservePodInit(id string) (*podInit, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.inits[id]; p != nil {
		return p, false
	}
	if s.stopping {
		return nil, false
	}
	p := &podInit{ready: make(chan struct{}), gone: make(chan struct{})}
	s.inits[id] = p
	return p, true
}

// forgetPodInit removes the record first: who starts another one writes it.
func (s *Server) forgetPodInit(id string) {
	if err := removeFile(s.podInitPath(id)); err != nil {
		logrus.WithField("pod", id).WithError(err).Warn("remove pod init record")
	}
	s.mu.Lock()
	delete(s.inits, id)
	s.mu.Unlock()
}

func (s *Server) startPodInit(ctx context.Context, req *v1.StartPodInitRequest) (*pidfd.Process, error) {
	var entrance owncgroup.Entrance
	scope := owncgroup.IsScope(req.CgroupPath)
	if req.CgroupPath != "" && !scope {
		var err error
		if entrance, err = owncgroup.Open(req.CgroupPath); err != nil {
			return nil, err
		}
		defer entrance.Close()
	}
	s.mu.Lock()
	empty := s.emptyRoot
	s.mu.Unlock()
	pid, err := podinit.Start(ctx, req.NamespacePaths, podinit.Cgroup{Unified: entrance.Unified, Tasks: entrance.Tasks}, empty)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	proc, err := pidfd.Open(pid)
	if err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
		return nil, err
	}
	if empty == nil {
		s.keepEmptyRoot(pid)
	}
	stat, err := pidfd.ReadStat(pid)
	if err == nil {
		err = writeJSON(s.podInitPath(req.Id), podInitRecord{ID: req.Id, PID: pid, StartTime: stat.StartTime})
	}
	if err == nil && scope {
		// That takes a while, and until then only the record tells whose it is.
		err = owncgroup.EnterScope(req.CgroupPath, pid)
	}
	if err != nil {
		_ = proc.Signal(unix.SIGKILL)
		_, _ = proc.Wait()
		proc.Close()
		return nil, err
	}
	return proc, nil
}

// keepEmptyRoot keeps what a pod's first process has made for itself, for those
// of other pods. Without it each makes its own.
func (s *Server) keepEmptyRoot(pid int) {
	root, err := podinit.EmptyRoot(pid)
	if err != nil {
		logrus.WithError(err).Warn("keep the empty root of a pod's first process")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.emptyRoot != nil {
		root.Close()
		return
	}
	s.emptyRoot = root
}

// watchPodInit forgets a pod's first process once it ended.
func (s *Server) watchPodInit(id string, p *podInit) {
	if _, err := p.proc.Wait(); err != nil {
		logrus.WithField("pod", id).WithError(err).Error("wait for pod init")
	}
	s.forgetPodInit(id)
	close(p.gone)
	p.proc.Close()
}

// StopPodInit kills a pod's first process, and with it all others of its PID
// namespace.
func (s *Server) StopPodInit(ctx context.Context, req *v1.ContainerRequest) (*v1.Empty, error) {
	s.mu.Lock()
	p := s.inits[req.Id]
	s.mu.Unlock()
	if p == nil {
		return &v1.Empty{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	select {
	case <-p.ready:
	case <-ctx.Done():
		return nil, fmt.Errorf("stop pod init %s: %w", req.Id, ctx.Err())
	}
	if p.proc == nil {
		return &v1.Empty{}, nil
	}
	err := p.proc.Signal(unix.SIGKILL)
	select {
	case <-p.gone:
		return &v1.Empty{}, nil
	default:
	}
	if err != nil && err != unix.ESRCH {
		return nil, fmt.Errorf("stop pod init %s: %w", req.Id, err)
	}
	select {
	case <-p.gone:
		return &v1.Empty{}, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("stop pod init %s: it survives SIGKILL: %w", req.Id, ctx.Err())
	}
}
