package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
	"github.com/nodeagent/nodeagent/supervisor/server/pidfd"
)

const (
	// criuProgram is looked for in PATH.
	criuProgram = "criu"
	// criuLabel is what libcontainer takes the path of CRIU's configuration
	// file from. A pod's annotation of that name must never reach it: the
	// file may name programs to run.
	criuLabel = "org.criu.config"
	// checkTime bounds "criu check".
	checkTime = 10 * time.Second
	// dumpTime bounds a dump whose client is gone. One that is killed
	// half-way may leave its code in the container's processes, so it is
	// given long.
	dumpTime = 5 * time.Minute
	// logTail is how much of CRIU's log is read for its errors, in bytes.
	logTail = 64 << 10
)

// CheckCRIU asks CRIU whether it works on this kernel: a distribution's CRIU
// may be older than its kernel.
func (s *Server) CheckCRIU(ctx context.Context, _ *v1.Empty) (*v1.Empty, error) {
	program, err := exec.LookPath(criuProgram)
	if err != nil {
		return nil, fmt.Errorf("the program criu is not installed: %w", errdefs.ErrNotImplemented)
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "check").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("criu does not work on this kernel: %s: %w", criuError(out, err), errdefs.ErrNotImplemented)
	}
	return &v1.Empty{}, nil
}

// criuError is the first error in what CRIU wrote, or err.
func criuError(out []byte, err error) string {
	for line := range bytes.Lines(out) {
		if at := bytes.Index(line, []byte("Error (")); at >= 0 {
			return strings.TrimSpace(string(line[at:]))
		}
	}
	return err.Error()
}

// Checkpoint dumps a container's processes, which stay as they are, running
// or paused. When the client gives up the dump goes on, and the container is
// held by it until its end.
func (s *Server) Checkpoint(ctx context.Context, req *v1.CheckpointRequest) (*v1.Empty, error) {
	c, err := s.findRunning(req.Id)
	if err != nil {
		return nil, fmt.Errorf("checkpoint %w", err)
	}
	if c.record.Terminal {
		return nil, fmt.Errorf("checkpoint container %s: it has a terminal: %w", c.id, errdefs.ErrFailedPrecondition)
	}
	if err := acquireToken(ctx, s.dumps); err != nil {
		return nil, fmt.Errorf("checkpoint container %s: wait for another dump: %w", c.id, err)
	}
	defer func() { <-s.dumps }()
	if err := c.acquire(ctx); err != nil {
		return nil, fmt.Errorf("checkpoint %w", err)
	}
	defer c.release()
	handle, err := s.loaded(c)
	if err != nil {
		return nil, fmt.Errorf("checkpoint %w", err)
	}
	externals, err := writeExternals(s.criuConfig(c.id), c.record.PID)
	if err != nil {
		return nil, fmt.Errorf("checkpoint container %s: %w", c.id, err)
	}
	// Only what hangs is killed.
	hung := time.AfterFunc(dumpTime, s.killCRIU)
	defer hung.Stop()
	err = handle.Checkpoint(criuOptions(req.Images))
	if err == nil {
		err = writeDescriptors(req.Images, externals)
	}
	if err != nil {
		out, _ := readTail(filepath.Join(req.Images, "dump.log"), logTail)
		return nil, fmt.Errorf("checkpoint container %s: %s", c.id, criuError(out, err))
	}
	return &v1.Empty{}, nil
}

func acquireToken(ctx context.Context, ch chan struct{}) error {
	select {
	case ch <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// criuConfig is CRIU's configuration file of a container. libcontainer is
// told of it when the container is made.
func (s *Server) criuConfig(id string) string { return filepath.Join(s.root(), id, "criu.conf") }

// criuOptions are those of dumps and restores.
func criuOptions(images string) *libcontainer.CriuOpts {
	return &libcontainer.CriuOpts{
		ImagesDirectory: images,
		LeaveRunning:    true,
		TcpEstablished:  true,
		FileLocks:       true,
		StatusFd:        -1,
		// Cgroups are the agent's.
		ManageCgroupsMode: "ignore",
	}
}

// writeExternals writes CRIU's configuration for a dump: the FIFOs that init
// and its children write their output to lie outside the container, where
// CRIU takes files only if they are named so. It returns the names, "" for a
// descriptor that needs none.
func writeExternals(path string, pid int) ([]string, error) {
	var conf strings.Builder
	names := make([]string, 3)
	for fd := range names {
		name, err := externalFIFO(pid, fd)
		if err != nil {
			return nil, err
		}
		if name != "" {
			fmt.Fprintf(&conf, "external %s\n", name)
		}
		names[fd] = name
	}
	return names, os.WriteFile(path, []byte(conf.String()), 0o600)
}

// externalFIFO is CRIU's name of a descriptor that is a FIFO with a name:
// its mount and inode; "" for anything else.
func externalFIFO(pid, fd int) (string, error) {
	path := fmt.Sprintf("/proc/%d/fd/%d", pid, fd)
	link, err := os.Readlink(path)
	if errors.Is(err, os.ErrNotExist) || strings.HasPrefix(link, "pipe:") {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return "", nil
	}
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(info)) {
		if value, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			id, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				return "", fmt.Errorf("mount of descriptor %d: %w", fd, err)
			}
			return fmt.Sprintf("file[%x:%x]", id, st.Ino), nil
		}
	}
	return "", fmt.Errorf("descriptor %d has no mount: %w", fd, errdefs.ErrNotFound)
}

// killCRIU kills the CRIU of the dump under way. There is one dump at a time,
// so a child of ours by that name is its.
func (s *Server) killCRIU() {
	children, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return
	}
	for _, path := range children {
		list, _ := os.ReadFile(path)
		for _, word := range strings.Fields(string(list)) {
			pid, _ := strconv.Atoi(word)
			comm, _ := os.ReadFile(filepath.Join("/proc", word, "comm"))
			if pid == 0 || strings.TrimSpace(string(comm)) != criuProgram || s.isInit(pid) {
				continue
			}
			if proc, err := pidfd.Open(pid); err == nil {
				logrus.WithField("pid", pid).Error("kill a CRIU that hangs")
				_ = proc.Signal(unix.SIGKILL)
				proc.Close()
			}
		}
	}
}

// isInit tells whether a process is a container's.
func (s *Server) isInit(pid int) bool {
	return slices.ContainsFunc(s.all(), func(c *container) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.record.PID == pid
	})
}

// readTail reads at most limit bytes from the end of a file.
func readTail(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	at := max(0, st.Size()-limit)
	out := make([]byte, st.Size()-at)
	n, err := f.ReadAt(out, at)
	return out[:n], err
}
