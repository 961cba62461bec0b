package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/blocked"
	"github.com/nodeagent/nodeagent/internal/timing"
	"github.com/nodeagent/nodeagent/network/builtin"
)

const (
	// builtinPath stands before the type where the path of a plugin would be.
	builtinPath = "builtin:"
	// maxOutput bounds what a plugin may print.
	maxOutput = 1 << 20
	// drainTime is how long output of a killed plugin's children is awaited.
	drainTime = 2 * time.Second
	// killTime is how long a killed plugin may take to be gone, its output drained.
	killTime = drainTime + time.Second
	// busyAttempts and busyPause are for a plugin that is just being written.
	busyAttempts = 10
	busyPause    = 100 * time.Millisecond
)

// executor is how libcni runs plugins: in process those in builtin, by
// executing them all others.
type executor struct {
	m       *Manager
	builtin map[string]bool
}

// FindInPath finds a plugin.
func (e *executor) FindInPath(name string, dirs []string) (string, error) {
	if err := checkType(name); err != nil {
		return "", err
	}
	if e.builtin[name] {
		return builtinPath + name, nil
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("plugin %s is not in %s: %w", name, strings.Join(dirs, ", "), errdefs.ErrUnavailable)
}

// Decode reads the answer to VERSION.
func (e *executor) Decode(data []byte) (version.PluginInfo, error) {
	decoder := version.PluginDecoder{}
	return decoder.Decode(data)
}

// ExecPlugin runs a plugin found by FindInPath.
func (e *executor) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	name, ok := strings.CutPrefix(path, builtinPath)
	if !ok {
		defer timing.Of(ctx, "plugin "+filepath.Base(path))()
		out, err := e.m.execute(ctx, path, stdin, environ)
		if err == nil && slices.Contains(environ, "CNI_COMMAND=ADD") {
			if err := checkResult(out); err != nil {
				return nil, fmt.Errorf("plugin %s: %w", path, err)
			}
		}
		return out, err
	}
	defer timing.Of(ctx, "plugin "+name)()
	call := &builtin.Call{Conf: stdin}
	for _, variable := range environ {
		key, value, _ := strings.Cut(variable, "=")
		switch key {
		case "CNI_COMMAND":
			call.Command = value
		case "CNI_CONTAINERID":
			call.ContainerID = value
		case "CNI_NETNS":
			call.NetNS = value
		case "CNI_IFNAME":
			call.IfName = value
		case "CNI_ARGS":
			call.Args = value
		}
	}
	call.Delegate = func(ctx context.Context, ipam string) ([]byte, error) {
		path, err := e.FindInPath(ipam, e.m.cfg.BinDirs)
		if err != nil {
			return nil, err
		}
		return e.ExecPlugin(ctx, path, stdin, environ)
	}
	return e.m.plugins.Run(ctx, name, call)
}

// execute runs a plugin's program when there is a slot, under a deadline, and
// kills its process group when that is over.
func (m *Manager) execute(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	select {
	case m.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait to run plugin %s: %w", path, context.Cause(ctx))
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.PluginTimeout)
	defer cancel()
	var out []byte
	var err error
	done := make(chan struct{})
	// It ends with the program: one that the kernel cannot kill, since it waits for a
	// disk or a server, keeps its slot, and nothing else.
	go func() {
		defer func() { <-m.slots }()
		defer close(done)
		out, err = runReady(ctx, path, stdin, environ)
	}()
	select {
	case <-done:
		return out, err
	case <-ctx.Done():
	}
	timer := time.NewTimer(killTime)
	defer timer.Stop()
	select {
	case <-done:
		return out, err
	case <-timer.C:
		return nil, fmt.Errorf("plugin %s cannot be killed: %w", path, context.Cause(ctx))
	}
}

// runReady runs the program, once it is not being written any more.
func runReady(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	for attempt := 1; ; attempt++ {
		out, err := runOnce(ctx, path, stdin, environ)
		if !errors.Is(err, unix.ETXTBSY) || attempt == busyAttempts {
			return out, err
		}
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// runOnce runs the program. It dies with the agent, so that no ADD is still at
// work when the next agent takes its pod back; the thread is kept, since the
// kernel counts the thread's death as the parent's.
func runOnce(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var stdout, stderr boundedBuffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = environ
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = drainTime
	err := cmd.Start()
	if err == nil {
		// nodectl ops tells by this what is waited for.
		name := fmt.Sprintf("%s (PID %d)", filepath.Base(path), cmd.Process.Pid)
		pprof.Do(ctx, pprof.Labels(blocked.ProgramLabel, name), func(context.Context) { err = cmd.Wait() })
	}
	switch {
	case err != nil && ctx.Err() != nil && !exited(cmd.ProcessState):
		return nil, fmt.Errorf("plugin %s was killed: %w", path, context.Cause(ctx))
	case errors.Is(err, exec.ErrWaitDelay):
		return nil, fmt.Errorf("plugin %s ended, but not what it started, which keeps its output open: %w", path, errdefs.ErrInternal)
	case err != nil:
		return nil, pluginError(path, err, stdout.data, stderr.data)
	case stdout.over:
		return nil, fmt.Errorf("plugin %s printed more than %d bytes: %w", path, maxOutput, errdefs.ErrInternal)
	}
	return stdout.data, nil
}

// exited says that a process ended by itself.
func exited(state *os.ProcessState) bool { return state != nil && state.Exited() }

// pluginError reads the error that a plugin printed, as CNI wants it to.
func pluginError(path string, err error, stdout, stderr []byte) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("run plugin %s: %w", path, err)
	}
	var printed types.Error
	if json.Unmarshal(stdout, &printed) != nil || printed.Msg == "" {
		return fmt.Errorf("plugin %s: %w: %q", path, err, excerpt(append(stderr, stdout...)))
	}
	message := printed.Msg
	if printed.Details != "" {
		message += ": " + printed.Details
	}
	message = excerpt([]byte(message))
	switch printed.Code {
	case types.ErrTryAgainLater, types.ErrPluginNotAvailable, types.ErrLimitedConnectivity:
		return fmt.Errorf("plugin %s: %s: %w", path, message, errdefs.ErrUnavailable)
	case types.ErrInvalidNetworkConfig, types.ErrDecodingFailure, types.ErrIncompatibleCNIVersion, types.ErrUnsupportedField:
		return fmt.Errorf("plugin %s: %s: %w", path, message, errdefs.ErrInvalidArgument)
	}
	return fmt.Errorf("plugin %s: %s", path, message)
}

// excerpt keeps an error readable.
func excerpt(text []byte) string {
	const limit = 1024
	text = bytes.TrimSpace(text)
	if len(text) > limit {
		text = text[:limit]
	}
	return strings.ToValidUTF8(string(text), "?")
}

// boundedBuffer keeps the first maxOutput bytes, and swallows the rest, so
// that the writer does not die of it.
type boundedBuffer struct {
	data []byte
	over bool
}

// Write never fails.
func (b *boundedBuffer) Write(data []byte) (int, error) {
	kept := data[:min(len(data), maxOutput-len(b.data))]
	b.over = b.over || len(kept) < len(data)
	b.data = append(b.data, kept...)
	return len(data), nil
}
