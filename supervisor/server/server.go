// Package server is the node supervisor: the parent of every container on the
// node, and the only package that links libcontainer. It starts containers,
// carries their output into their logs, waits for them and tells of their
// exits. It must outlive the agent, so it does nothing else.
//
// Its own death is harmless too: what it must know again lies in its state
// directory (records, exit records, FIFOs), and the next supervisor adopts
// every container it finds alive (adopt.go).
//
// The state directory:
//
//	lock                     held by the running supervisor
//	containers/<id>/         libcontainer's state
//	records/<id>.json        ours; written before anything runs
//	exits/<id>.json          how a container ended; written before it is told
//	containers-io/<id>/      FIFOs
//	podinits/<id>.json       the first process of a pod's PID namespace
package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"
	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // device rules are refused without it
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
	"github.com/nodeagent/nodeagent/supervisor"
	"github.com/nodeagent/nodeagent/supervisor/server/oomwatch"
	"github.com/nodeagent/nodeagent/supervisor/server/seccompfilter"
)

// Config says how a supervisor runs.
type Config struct {
	// Socket is the path it listens on; the socket for descriptors lies
	// beside it.
	Socket string
	// State is its state directory, on tmpfs.
	State string
	// Version is what Info tells.
	Version string
}

// Server is a running supervisor. Make it with New, run it with Serve, and
// end it with Close.
type Server struct {
	cfg       Config
	startedAt time.Time
	lock      *os.File
	rpc       *ttrpc.Server
	limits    *limits
	tokens    *tokens
	trim      *trimmer
	events    broadcaster
	ledger    oomwatch.Ledger
	// slots bounds the starts at one time, and with them the threads; see slot.
	slots chan struct{}
	// dumps is held, as a token in the channel, by the one dump under way.
	dumps chan struct{}
	// selfJoin: execs may join the cgroups of their containers by themselves.
	selfJoin bool
	// filters are those of execs.
	filters seccompfilter.Cache
	// stopped is closed by Shutdown.
	stopped chan struct{}

	mu         sync.Mutex // guards the maps, never held over a blocking call
	containers map[string]*container
	inits      map[string]*podInit
	// emptyRoot is the mount namespace of pods' first processes; nil before
	// there is one.
	emptyRoot *os.File
	stopping  bool
	listeners []*net.UnixListener
}

var _ v1.SupervisorService = (*Server)(nil)

// lockTimeout is how long a new supervisor waits for its predecessor to go.
const lockTimeout = 5 * time.Second

// New takes the state directory over and adopts the containers found in it.
func New(ctx context.Context, cfg Config) (*Server, error) {
	s := &Server{
		cfg:        cfg,
		startedAt:  time.Now(),
		limits:     readLimits(),
		tokens:     newTokens(),
		slots:      make(chan struct{}, max(4, 2*runtime.NumCPU())),
		dumps:      make(chan struct{}, 1),
		selfJoin:   !cgroups.IsCgroup2UnifiedMode(),
		stopped:    make(chan struct{}),
		containers: map[string]*container{},
		inits:      map[string]*podInit{},
	}
	s.trim = newTrimmer(s.dropCaches)
	for _, dir := range []string{cfg.State, s.root(), s.dir("records"), s.dir("exits"), s.dir("containers-io"), s.dir("podinits"), s.dir(execsDir)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("prepare state: %w", err)
		}
	}
	lock, err := lockState(ctx, s.dir("lock"))
	if err != nil {
		return nil, err
	}
	s.lock = lock
	s.rpc, err = ttrpc.NewServer(
		ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireUidGid(0, -1)),
		ttrpc.WithUnaryServerInterceptor(intercept),
	)
	if err != nil {
		lock.Close()
		return nil, err
	}
	v1.RegisterSupervisorService(s.rpc, s)
	s.limits.protect()
	s.adopt()
	return s, nil
}

// lockState makes sure that one supervisor at a time uses a state directory.
func lockState(ctx context.Context, path string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state: %w", err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock state: another supervisor uses %s", filepath.Dir(path))
		}
	}
	return f, nil
}

// Serve listens and answers until Shutdown or ctx's end. ready is called once
// both sockets listen.
func (s *Server) Serve(ctx context.Context, ready func()) error {
	rpc, err := listen(s.cfg.Socket)
	if err != nil {
		return err
	}
	defer rpc.Close()
	fds, err := listen(supervisor.DescriptorSocket(s.cfg.Socket))
	if err != nil {
		return err
	}
	defer fds.Close()
	s.mu.Lock()
	s.listeners = []*net.UnixListener{rpc, fds}
	s.mu.Unlock()
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { s.tokens.serve(fds) })
	failed := make(chan error, 1)
	group.Go(func() { failed <- s.rpc.Serve(ctx, rpc) })
	s.trim.touch()
	ready()
	select {
	case err = <-failed:
	case <-ctx.Done():
	case <-s.stopped:
	}
	fds.Close()
	s.stopServing()
	if s.isStopping() || errors.Is(err, ttrpc.ErrServerClosed) {
		err = nil
	}
	return err
}

func (s *Server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// stopServing lets answers under way leave, for a moment.
func (s *Server) stopServing() {
	s.events.close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.rpc.Shutdown(ctx); err != nil {
		s.rpc.Close()
	}
}

// listen makes a socket that only root can connect to.
func listen(path string) (*net.UnixListener, error) {
	old := unix.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// suspendTimeout bounds the writing of what was read to the logs, at the end.
const suspendTimeout = 2 * time.Second

// Close lets go of everything. Containers go on running.
func (s *Server) Close() {
	s.trim.stop()
	s.tokens.close()
	s.suspend()
	if s.emptyRoot != nil {
		s.emptyRoot.Close()
	}
	s.lock.Close()
}

// suspend ends the reading of all output, so that no line is lost to who reads
// next. A log on a disk that hangs is not waited for.
func (s *Server) suspend() {
	var group sync.WaitGroup
	for _, c := range s.all() {
		c.mu.Lock()
		streams := c.io
		c.mu.Unlock()
		if streams != nil {
			group.Go(streams.Suspend)
		}
	}
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(suspendTimeout):
		logrus.Warn("output that was read may be missing in logs")
	}
}

// all returns every container.
func (s *Server) all() []*container {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.containers))
}

// slot waits for one of the slots for what starts. It is given back by giveBack,
// or once patience is over: what takes longer waits for something, such as a
// file system that hangs, and must not hold up what others start.
func (s *Server) slot(ctx context.Context, patience time.Duration) (giveBack func(), err error) {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for a free slot: %w", ctx.Err())
	}
	once := sync.OnceFunc(func() { <-s.slots })
	timer := time.AfterFunc(patience, once)
	return func() {
		timer.Stop()
		once()
	}, nil
}

func (s *Server) dir(name string) string { return filepath.Join(s.cfg.State, name) }

// root is libcontainer's state directory.
func (s *Server) root() string { return s.dir("containers") }

// intercept gives errors their code, and keeps a panic in one request from
// ending the parent of every container.
func intercept(ctx context.Context, unmarshal ttrpc.Unmarshaler, info *ttrpc.UnaryServerInfo, method ttrpc.Method) (resp any, err error) {
	defer func() {
		if p := recover(); p != nil {
			stack := make([]byte, 16<<10)
			stack = stack[:runtime.Stack(stack, false)]
			logrus.WithField("method", info.FullMethod).Errorf("panic: %v\n%s", p, stack)
			resp, err = nil, coded(fmt.Errorf("%s: panic: %v: %w", info.FullMethod, p, errdefs.ErrInternal))
		}
	}()
	resp, err = method(ctx, unmarshal)
	if err != nil {
		return nil, coded(err)
	}
	return resp, nil
}

// coded gives an error the code of its kind and its text, once: what it wraps
// beside its kind would come as further lines on the other side.
func coded(err error) error {
	return errgrpc.ToGRPC(oneLine{text: err.Error(), kind: errdefs.Resolve(err)})
}

// oneLine is an error's text with its kind.
type oneLine struct {
	text string
	kind error
}

func (e oneLine) Error() string { return e.text }
func (e oneLine) Unwrap() error { return e.kind }
