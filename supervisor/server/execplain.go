package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/supervisor/server/execinit"
	"github.com/nodeagent/nodeagent/supervisor/server/pidfd"
)

// errNotPlain says that an exec is one for libcontainer.
var errNotPlain = errors.New("not a plain exec")

// plainConfig is what of a container's configuration its plain execs need. It
// is small, so it stays, where libcontainer's is dropped and loaded again.
type plainConfig struct {
	// possible: the container has nothing that only libcontainer can give
	// to an exec.
	possible     bool
	keyring      string
	umask        *uint32
	oomScoreAdj  *int
	limits       []execinit.Limit
	capabilities *configs.Capabilities
	filters      []execinit.Filter
}

// newPlainConfig judges a container. User and time namespaces, security
// modules and what is rarely used are left to libcontainer.
func (s *Server) newPlainConfig(id string, c *configs.Config) *plainConfig {
	p := &plainConfig{
		possible: !c.Namespaces.Contains(configs.NEWUSER) && !c.Namespaces.Contains(configs.NEWTIME) &&
			c.AppArmorProfile == "" && c.ProcessLabel == "" && c.Personality == nil &&
			c.Scheduler == nil && c.IOPriority == nil && c.ExecCPUAffinity == nil && c.MemoryPolicy == nil &&
			c.IntelRdt == nil && c.ParentDeathSignal == 0 && !c.NoPivotRoot && !c.RootlessEUID && !c.RootlessCgroups,
		umask:        c.Umask,
		oomScoreAdj:  c.OomScoreAdj,
		limits:       plainLimits(c.Rlimits),
		capabilities: c.Capabilities,
	}
	if !c.NoNewKeyring {
		p.keyring = "_ses." + id
	}
	if p.possible && c.Seccomp != nil {
		filter, err := s.filters.Get(c.Seccomp)
		if err != nil {
			logrus.WithField("container", id).WithError(err).Warn("execs are left to libcontainer, and take longer")
			p.possible = false
		}
		p.filters = []execinit.Filter{execinit.Filter(filter)}
	}
	return p
}

func plainLimits(limits []configs.Rlimit) []execinit.Limit {
	var out []execinit.Limit
	for _, l := range limits {
		out = append(out, execinit.Limit{Kind: l.Type, Soft: l.Soft, Hard: l.Hard})
	}
	return out
}

// plainConfig returns a container's, which is made at its first exec.
func (s *Server) plainConfig(c *container) (*plainConfig, error) {
	c.mu.Lock()
	p := c.plain
	c.mu.Unlock()
	if p != nil {
		return p, nil
	}
	// Not kept: it is large, and nothing else of it is needed.
	handle, err := libcontainer.Load(s.root(), c.id)
	if err != nil {
		return nil, fmt.Errorf("load container %s: %w", c.id, err)
	}
	config := handle.Config()
	p = s.newPlainConfig(c.id, &config)
	c.mu.Lock()
	c.plain = p
	c.mu.Unlock()
	s.trim.touch()
	return p, nil
}

// runPlain runs a process without libcontainer, and takes hold of it.
// errNotPlain means that nothing was done.
func (s *Server) runPlain(ctx context.Context, c *container, e *execution, process *libcontainer.Process) (*pidfd.Process, error) {
	config, err := s.plainConfig(c)
	if err != nil {
		return nil, err
	}
	request, err := plainRequest(config, process)
	if err != nil {
		return nil, err
	}
	if e.oomScoreAdj != nil {
		request.OOMScoreAdj = e.oomScoreAdj
	}
	close, err := s.enterCgroups(c, request)
	if err != nil {
		return nil, err
	}
	defer close()
	c.mu.Lock()
	target := c.proc
	c.mu.Unlock()
	if target == nil {
		return nil, c.notRunning()
	}
	pid, err := execinit.Start(ctx, target, plainStreams(process), request)
	if err != nil {
		return nil, plainError(err)
	}
	e.joined = len(request.Tasks) > 0
	proc, err := pidfd.Open(pid)
	// Zero would mean all of ours, and the supervisor first.
	if err != nil && pid > 0 {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}
	return proc, err
}

// plainRequest says to execinit what a process says to libcontainer.
func plainRequest(c *plainConfig, p *libcontainer.Process) (*execinit.Request, error) {
	if !c.possible || p.ConsoleSocket != nil || p.AppArmorProfile != "" || p.Label != "" || p.Scheduler != nil ||
		p.IOPriority != nil || p.CPUAffinity != nil || p.NoNewPrivileges == nil {
		return nil, errNotPlain
	}
	caps := p.Capabilities
	if caps == nil {
		caps = c.capabilities
	}
	sets, ok := plainCapabilities(caps)
	if !ok {
		return nil, errNotPlain
	}
	env, ok := plainEnvironment(p.Env)
	if !ok {
		return nil, errNotPlain
	}
	limits := c.limits
	if len(p.Rlimits) > 0 {
		limits = plainLimits(p.Rlimits)
	}
	return &execinit.Request{
		Args: p.Args, Env: env, Dir: p.Cwd, UID: p.UID, GID: p.GID, Groups: p.AdditionalGroups,
		Capabilities: sets, NoNewPrivileges: *p.NoNewPrivileges, Limits: limits, Filters: c.filters,
		Umask: c.umask, OOMScoreAdj: c.oomScoreAdj, Keyring: c.keyring,
	}, nil
}

// plainStreams are a process's standard streams; nil where it has none.
func plainStreams(p *libcontainer.Process) (streams [3]*os.File) {
	streams[0], _ = p.Stdin.(*os.File)
	streams[1], _ = p.Stdout.(*os.File)
	streams[2], _ = p.Stderr.(*os.File)
	return streams
}

// plainCapabilities turns names into bits; false when there is one that nobody
// knows, or none are said at all.
func plainCapabilities(c *configs.Capabilities) (execinit.Capabilities, bool) {
	var out execinit.Capabilities
	if c == nil {
		return out, false
	}
	known := capabilityBits()
	for _, set := range []struct {
		names []string
		bits  *uint64
	}{
		{c.Bounding, &out.Bounding}, {c.Effective, &out.Effective}, {c.Permitted, &out.Permitted},
		{c.Inheritable, &out.Inheritable}, {c.Ambient, &out.Ambient},
	} {
		for _, name := range set.names {
			bit, ok := known[name]
			if !ok {
				return out, false
			}
			*set.bits |= bit
		}
	}
	return out, true
}

// plainEnvironment keeps the last value of each variable. It is false for what
// libcontainer refuses, and without a home folder, which it looks for.
func plainEnvironment(env []string) ([]string, bool) {
	out := make([]string, 0, len(env))
	seen := make(map[string]bool, len(env))
	for _, entry := range slices.Backward(env) {
		key, value, ok := strings.Cut(entry, "=")
		if !ok || key == "" || strings.IndexByte(entry, 0) >= 0 {
			return nil, false
		}
		if seen[key] || key == "HOME" && value == "" {
			continue
		}
		seen[key] = true
		out = append(out, entry)
	}
	slices.Reverse(out)
	return out, seen["HOME"]
}

// enterCgroups says how a process gets into its container's cgroups; close
// must be called after its start.
func (s *Server) enterCgroups(c *container, r *execinit.Request) (close func(), err error) {
	if r.Tasks = s.joins(c); len(r.Tasks) > 0 {
		return func() {}, nil
	}
	unified := c.record.Cgroups[""]
	if s.selfJoin || unified == "" {
		return nil, errNotPlain
	}
	r.Unified, err = os.OpenFile(unified, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		// It may have been left by the container's first process.
		return nil, errNotPlain
	}
	return func() { r.Unified.Close() }, nil
}

// plainError gives an error a kind. A cgroup of v2 that takes no process, or a
// kernel that cannot enter namespaces by a process, leave it to libcontainer.
func plainError(err error) error {
	var failed *execinit.Error
	switch {
	case errors.Is(err, execinit.ErrKilled):
		return fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	case !errors.As(err, &failed):
		return err
	case failed.Requested():
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	case failed.Step == execinit.StepNamespaces && failed.Err != unix.ESRCH:
		return errNotPlain
	case failed.Step == execinit.StepNamespaces, failed.Step == execinit.StepFork && (failed.Err == unix.ENOMEM || failed.Err == unix.ENODEV):
		// Its first process is ending, and with it the PID namespace or the cgroup.
		return fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	case failed.Step == execinit.StepFork && (failed.Err == unix.EBUSY || failed.Err == unix.EOPNOTSUPP || failed.Err == unix.ENOSYS):
		return errNotPlain
	}
	return err
}
