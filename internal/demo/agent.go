package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	startLimit   = 30 * time.Second
	stopLimit    = 20 * time.Second
	pollInterval = 20 * time.Millisecond
)

// eager dials a socket that is not there yet again at once: backing off is for servers far away.
var eager = grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: pollInterval, Multiplier: 1, MaxDelay: pollInterval}, MinConnectTimeout: time.Second}

// agent is a nodeagent process on folders below dir.
type agent struct {
	program string
	dir     string
	args    []string
	cmd     *exec.Cmd
	done    chan struct{} // closed once the process has ended
	log     bytes.Buffer  // read only after done
	conn    *grpc.ClientConn
}

// newAgent settles folders and flags. Nothing is made yet.
func newAgent(program, supervisor, dir string) *agent {
	at := func(name string) string { return filepath.Join(dir, name) }
	args := []string{
		"--config", at("config.toml"), "--root", at("root"), "--state", at("state"), "--listen", "unix://" + at("sock"),
		"--certs-dir", at("certs.d"), "--cni-conf-dir", at("cni"), "--cni-bin-dir", at("cni"),
		"--cgroup-parent", fmt.Sprintf("/nodeagent-demo-%d", os.Getpid()), "--log-level", "info",
	}
	if supervisor != "" {
		args = append(args, "--supervisor", supervisor)
	}
	return &agent{program: program, dir: dir, args: args, done: make(chan struct{})}
}

// start starts the agent and waits until it answers.
func (a *agent) start(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(a.dir, "cni"), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(a.dir, "config.toml"), nil, 0o600); err != nil {
		return err
	}
	a.cmd = exec.Command(a.program, a.args...)
	a.cmd.Stdout, a.cmd.Stderr = &a.log, &a.log
	// A terminal's interrupt is for the demo, which then takes the agent down in order.
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// The supervisor outlives the agent; it must not keep Wait from returning by holding the log's pipe.
	a.cmd.WaitDelay = time.Second
	if err := a.cmd.Start(); err != nil {
		a.cmd = nil
		return err
	}
	go func() {
		_ = a.cmd.Wait()
		close(a.done)
	}()
	conn, err := grpc.NewClient("unix://"+filepath.Join(a.dir, "sock"), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(eager))
	if err != nil {
		return err
	}
	a.conn = conn
	return a.waitReady(ctx)
}

func (a *agent) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		_, err := a.runtime().Version(ctx, &runtimeapi.VersionRequest{})
		if err == nil {
			return nil
		}
		select {
		case <-a.done:
			return errors.New("the agent ended before it answered")
		case <-ctx.Done():
			return fmt.Errorf("the agent does not answer: %w", err)
		case <-ticker.C:
		}
	}
}

func (a *agent) runtime() runtimeapi.RuntimeServiceClient {
	return runtimeapi.NewRuntimeServiceClient(a.conn)
}

func (a *agent) images() runtimeapi.ImageServiceClient {
	return runtimeapi.NewImageServiceClient(a.conn)
}

// stop ends the agent and then what outlives it: supervisor, pods, network and folders.
func (a *agent) stop(ctx context.Context) error {
	if a.conn != nil {
		_ = a.conn.Close()
	}
	if a.cmd != nil {
		_ = a.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-a.done:
		case <-time.After(stopLimit):
			_ = a.cmd.Process.Kill()
			<-a.done
		}
	}
	out, err := exec.CommandContext(ctx, a.program, append([]string{"cleanup", "--purge"}, a.args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("nodeagent cleanup: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}
