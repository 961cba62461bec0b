package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
	"github.com/nodeagent/nodeagent/internal/undo"
	"github.com/nodeagent/nodeagent/supervisor"
	"github.com/nodeagent/nodeagent/supervisor/fdpass"
	"github.com/nodeagent/nodeagent/supervisor/server/logfile"
	"github.com/nodeagent/nodeagent/supervisor/server/pidfd"
	"github.com/nodeagent/nodeagent/supervisor/server/stdio"
)

// startPatience is how long a start has a slot.
const startPatience = 5 * time.Second

// starting is a start under way: what its steps hand to each other.
type starting struct {
	s       *Server
	req     *v1.StartRequest
	c       *container
	spec    *specs.Spec
	config  *configs.Config
	files   *fdpass.Set
	log     *logfile.Writer
	io      *stdio.IO
	child   *stdio.Child
	process *libcontainer.Process
	// handle is not kept: it is large, and an exec loads it again.
	handle *libcontainer.Container
	// reserved says that the ID is ours, ran that libcontainer was told to run the process, survives that this was not
	// undone.
	reserved, ran, survives bool
}

// Start creates a container and runs it at once.
func (s *Server) Start(ctx context.Context, req *v1.StartRequest) (*v1.StartResponse, error) {
	if err := validateID("container", req.Id); err != nil {
		return nil, fmt.Errorf("start container: %w", err)
	}
	files, err := s.tokens.take(req.Attach)
	if err != nil {
		return nil, fmt.Errorf("start container %s: %w", req.Id, err)
	}
	defer files.Close()
	st := &starting{s: s, req: req, files: files, c: newContainer(req.Id)}
	if err := st.decode(); err != nil {
		return nil, fmt.Errorf("start container %s: %w: %w", req.Id, err, errdefs.ErrInvalidArgument)
	}
	giveBack, err := s.slot(ctx, startPatience)
	if err != nil {
		return nil, fmt.Errorf("start container %s: %w", req.Id, err)
	}
	defer giveBack()
	s.trim.touch()
	sequence := undo.Sequence{Name: "supervisor.start", Steps: st.steps(), Timeout: killTimeout}
	if err := sequence.Run(ctx); err != nil {
		return nil, fmt.Errorf("start container %s: %w", req.Id, err)
	}
	return &v1.StartResponse{Pid: int32(st.c.record.PID)}, nil
}

// steps are a start in order. The container is known under its ID from the
// first step on, so that a second start is refused and a deletion waits.
func (st *starting) steps() []undo.Step {
	return []undo.Step{
		{Name: "reserve", Do: st.reserve, Undo: st.forget},
		{Name: "open log", Do: st.openLog, Undo: st.closeLog},
		{Name: "create", Do: st.create, Undo: st.destroy},
		{Name: "record", Do: st.writeIntent, Undo: st.removeRecord},
		{Name: "make stdio", Do: st.makeStdio, Undo: st.closeStdio},
		{Name: "run", Do: st.run, Undo: st.kill, Plain: true},
		{Name: "carry output", Do: st.carry},
		{Name: "record process", Do: st.recordProcess},
		{Name: "watch", Do: st.watch},
	}
}

// decode turns the request into libcontainer's configuration.
func (st *starting) decode() error {
	var spec specs.Spec
	if err := json.Unmarshal(st.req.Spec, &spec); err != nil {
		return fmt.Errorf("decode specification: %w", err)
	}
	if spec.Process == nil || len(spec.Process.Args) == 0 || spec.Root == nil || spec.Linux == nil {
		return errors.New("specification lacks process, arguments, root or linux")
	}
	if spec.Linux.CgroupsPath == "" {
		return errors.New("specification lacks linux.cgroupsPath")
	}
	st.s.limits.clamp(spec.Process)
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:       st.req.Id,
		UseSystemdCgroup: st.req.SystemdCgroup,
		Spec:             &spec,
	})
	if err != nil {
		return err
	}
	// Ours comes first and counts: an annotation must not choose CRIU's configuration.
	config.Labels = append([]string{criuLabel + "=" + st.s.criuConfig(st.req.Id)}, config.Labels...)
	if res := config.Cgroups.Resources; st.req.SystemdCgroup && res.PidsLimit == nil {
		// systemd would set a limit of its own, DefaultTasksMax.
		unlimited := int64(-1)
		res.PidsLimit = &unlimited
	}
	st.spec, st.config = &spec, config
	st.process, err = newProcess(spec.Process)
	return err
}

func (st *starting) reserve(context.Context) error {
	st.c.op <- struct{}{}
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if st.s.stopping {
		return fmt.Errorf("supervisor is shutting down: %w", errdefs.ErrUnavailable)
	}
	if st.s.containers[st.c.id] != nil {
		return errdefs.ErrAlreadyExists
	}
	st.s.containers[st.c.id] = st.c
	st.reserved = true
	return nil
}

func (st *starting) forget(context.Context) error {
	if !st.reserved {
		return nil
	}
	st.s.mu.Lock()
	delete(st.s.containers, st.c.id)
	st.s.mu.Unlock()
	close(st.c.ended)
	st.c.release()
	return nil
}

func (st *starting) openLog(context.Context) (err error) {
	st.log, err = logfile.Open(st.req.LogPath)
	return err
}

func (st *starting) closeLog(context.Context) error {
	st.log.Close()
	return nil
}

func (st *starting) create(context.Context) error {
	handle, err := libcontainer.Create(st.s.root(), st.c.id, st.config)
	if errors.Is(err, libcontainer.ErrExist) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrAlreadyExists)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	st.handle = handle
	return nil
}

func (st *starting) destroy(context.Context) error {
	if st.handle == nil {
		return nil
	}
	return st.handle.Destroy()
}

// writeIntent records the container before there is a process, so that the
// next supervisor can remove what this one leaves if it dies now.
func (st *starting) writeIntent(context.Context) error {
	state, err := st.handle.State()
	if err != nil {
		return err
	}
	st.c.record = record{
		ID:         st.c.id,
		LogPath:    st.req.LogPath,
		MaxLogLine: int(st.req.MaxLogLine),
		Terminal:   st.spec.Process.Terminal,
		Stdin:      st.req.Stdin,
		StdinOnce:  st.req.StdinOnce,
		SharedPID:  !st.config.Namespaces.IsPrivate(configs.NEWPID),
		Cgroups:    state.CgroupPaths,
	}
	st.s.ledger.Enter(st.c.record.Cgroups)
	return writeJSON(st.s.recordPath(st.c.id), st.c.record)
}

func (st *starting) removeRecord(context.Context) error {
	st.s.ledger.Leave(st.c.record.Cgroups, 0, true)
	if st.survives {
		// The next supervisor tries again.
		return nil
	}
	return removeFile(st.s.recordPath(st.c.id))
}

// makeStdio makes the streams and attaches the client that came with the
// request, before there is anything it could miss.
func (st *starting) makeStdio(context.Context) error {
	uid, err := st.config.HostRootUID()
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	gid, err := st.config.HostRootGID()
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	cfg := st.s.stdioConfig(st.c.record, st.log)
	cfg.UID, cfg.GID = uid, gid
	st.io, st.child, err = stdio.Create(cfg)
	if err != nil {
		return err
	}
	st.process.ConsoleSocket = st.child.Console
	// A nil file in an interface is not a nil interface.
	if st.child.Stdin != nil {
		st.process.Stdin = st.child.Stdin
	}
	if st.child.Stdout != nil {
		st.process.Stdout, st.process.Stderr = st.child.Stdout, st.child.Stderr
	}
	if st.files.Empty() {
		return nil
	}
	streams := stdio.Streams{
		Stdin:  st.files.Stdin,
		Stdout: st.files.Stdout,
		Stderr: st.files.Stderr,
		Wait:   st.req.Attach.Wait,
	}
	*st.files = fdpass.Set{}
	return st.io.Attach(streams)
}

func (st *starting) closeStdio(context.Context) error {
	if st.io != nil {
		st.child.Close()
		st.io.Close()
	}
	return nil
}

// run runs the process. Without a terminal its output is carried from before
// its first instruction.
func (st *starting) run(context.Context) error {
	if !st.c.record.Terminal {
		if err := st.io.Run(); err != nil {
			return err
		}
	}
	st.ran = true
	var err error
	if st.req.Restore != "" {
		err = st.restore()
	} else {
		err = st.handle.Run(st.process)
	}
	st.child.Close()
	if err != nil {
		return startError(err)
	}
	return nil
}

// kill ends a process that was run although the start as a whole failed.
func (st *starting) kill(ctx context.Context) error {
	if !st.ran {
		return nil
	}
	if st.c.proc != nil {
		st.c.proc.Close()
	}
	err := killCgroups(ctx, st.c.record.Cgroups)
	pid, perr := st.process.Pid()
	if perr != nil {
		return err
	}
	_ = st.process.Signal(unix.SIGKILL)
	if err == nil {
		_, _ = st.process.Wait()
		return nil
	}
	// It hangs in the kernel, for who knows how long.
	st.survives = true
	go func() {
		if proc, err := pidfd.Open(pid); err == nil {
			_, _ = proc.Wait()
			proc.Close()
		}
	}()
	return err
}

func (st *starting) carry(context.Context) error {
	if !st.c.record.Terminal {
		return nil
	}
	return st.io.Run()
}

// recordProcess takes hold of the process and records it. It is our child and
// not waited for yet, so its number is its own.
func (st *starting) recordProcess(context.Context) error {
	pid, err := st.process.Pid()
	if err != nil {
		return err
	}
	stat, err := pidfd.ReadStat(pid)
	if err != nil {
		return err
	}
	proc, err := pidfd.Open(pid)
	if err != nil {
		return err
	}
	rec := st.c.record
	rec.PID, rec.StartTime, rec.StartedAt = pid, stat.StartTime, time.Now()
	if err := writeJSON(st.s.recordPath(st.c.id), rec); err != nil {
		proc.Close()
		return err
	}
	st.c.mu.Lock()
	defer st.c.mu.Unlock()
	st.c.record = rec
	st.c.proc = proc
	st.c.io = st.io
	st.c.status = supervisor.StatusRunning
	return nil
}

func (st *starting) watch(context.Context) error {
	st.c.release()
	go st.s.watch(st.c, 0)
	return nil
}

// stdioConfig is how the streams of a container are set up.
func (s *Server) stdioConfig(rec record, log *logfile.Writer) stdio.Config {
	return stdio.Config{
		Dir:       filepath.Join(s.dir("containers-io"), rec.ID),
		Terminal:  rec.Terminal,
		Stdin:     rec.Stdin,
		StdinOnce: rec.StdinOnce,
		Log:       log,
		MaxLine:   rec.MaxLogLine,
	}
}

// What libcontainer puts before the error of a container's init and of an
// exec; between the latter and an error of its own stands ownError.
const (
	initError = "error during container init: "
	execError = "unable to start container process: "
	ownError  = "error "
)

// startError makes an error of libcontainer readable and gives it a kind. What
// init itself reports is nearly always the fault of the specification.
func startError(err error) error {
	text := err.Error()
	if _, said, ok := strings.Cut(text, initError); ok {
		return fmt.Errorf("%s: %w", said, errdefs.ErrInvalidArgument)
	}
	said, ok := strings.CutPrefix(text, execError)
	if ok && !strings.HasPrefix(said, ownError) && !strings.HasPrefix(said, "unable ") {
		return fmt.Errorf("%s: %w", said, errdefs.ErrInvalidArgument)
	}
	return err
}

// logLevel is the supervisor's, but for debugging: an init that fails has
// closed its log before it debugs for the last time, and what the logger says
// of that would end up in the output of the container.
func logLevel() string { return strconv.Itoa(int(min(logrus.GetLevel(), logrus.InfoLevel))) }
