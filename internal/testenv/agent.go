package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	startLimit   = 30 * time.Second
	stopLimit    = 20 * time.Second
	cleanupLimit = time.Minute
	// maxMessage is the message size, in bytes, that kubelet allows itself.
	maxMessage = 16 << 20
)

// AgentOptions says how an agent differs from one on empty folders with the embedded network.
type AgentOptions struct {
	// Registry is where the images come from; nil for none.
	Registry *RegistryServer
	// CNIConfDir holds CNI configurations; empty for a folder without any.
	CNIConfDir string
	// CNIBinDir holds CNI plugins; empty for an empty folder.
	CNIBinDir string
	// SystemdCgroup has systemd make the cgroups.
	SystemdCgroup bool
	// Config is the text of the configuration file.
	Config string
	// Args are further flags.
	Args []string
	// Env are further variables, NAME=VALUE.
	Env []string
}

// AgentProcess is an agent on throwaway folders, which the test may kill and start again.
type AgentProcess struct {
	t testing.TB
	// Dir holds everything below.
	Dir string
	// Root and State are the agent's folders, Socket the path of the socket it serves on.
	Root, State, Socket string
	// CNIConfDir is the folder it reads CNI configurations from.
	CNIConfDir string
	// CgroupParent is the cgroup all of its pods are below unless they ask for another.
	CgroupParent string
	// LogPath is the file its standard error goes to.
	LogPath string

	args []string
	env  []string
	cmd  *exec.Cmd
	done chan error // receives what Wait returned, once
	conn *grpc.ClientConn
}

// eager dials a socket that is not there yet again at once: backing off is for servers far away.
var eager = grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: pollInterval, Multiplier: 1, MaxDelay: pollInterval}, MinConnectTimeout: time.Second}

// agents numbers the agents of this process.
var agents atomic.Int32

// Agent starts bin/nodeagent and waits until it answers. The clean-up removes its pods, stops it and its supervisor,
// and runs `nodeagent cleanup`.
func Agent(t testing.TB, options AgentOptions) *AgentProcess {
	t.Helper()
	a := newAgent(t, options)
	t.Cleanup(a.cleanup)
	a.Start()
	return a
}

// newAgent makes the folders and the command line. The folders are not below t.TempDir, since a socket's path has
// room for 107 bytes only.
func newAgent(t testing.TB, options AgentOptions) *AgentProcess {
	t.Helper()
	dir, err := os.MkdirTemp("", "na-")
	if err != nil {
		t.Fatal(err)
	}
	// A container's root that is another user on the host must reach its root filesystem below.
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	a := &AgentProcess{
		t: t, Dir: dir,
		Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), Socket: filepath.Join(dir, "s"),
		CNIConfDir:   options.CNIConfDir,
		CgroupParent: fmt.Sprintf("/nodeagent-test-%d-%d", os.Getpid(), agents.Add(1)),
		LogPath:      filepath.Join(dir, "log"),
		env:          options.Env,
	}
	if options.SystemdCgroup {
		a.CgroupParent = fmt.Sprintf("/natest%dx%d.slice", os.Getpid(), agents.Add(1))
		a.args = []string{"--cgroup-driver", "systemd"}
	}
	cniBin := options.CNIBinDir
	for _, unset := range []*string{&a.CNIConfDir, &cniBin} {
		if *unset == "" {
			if *unset, err = os.MkdirTemp(dir, "cni-"); err != nil {
				t.Fatal(err)
			}
		}
	}
	certs := filepath.Join(dir, "certs.d")
	if options.Registry != nil {
		certs = options.Registry.CertsDir
	}
	a.args = append(append(a.args,
		"--config", writeConfig(t, dir, options.Config), "--root", a.Root, "--state", a.State, "--listen", "unix://"+a.Socket,
		"--certs-dir", certs, "--cni-conf-dir", a.CNIConfDir, "--cni-bin-dir", cniBin,
		"--cgroup-parent", a.CgroupParent, "--supervisor", Binary(t, "nodesupervisor"), "--log-level", "debug",
	), options.Args...)
	return a
}

// writeConfig writes the configuration file, empty or not, so that none of this machine has a say.
func writeConfig(t testing.TB, dir, text string) string {
	t.Helper()
	path := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Start starts the agent, on the same folders each time, and waits until it answers.
func (a *AgentProcess) Start() {
	a.t.Helper()
	log, err := os.OpenFile(a.LogPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		a.t.Fatal(err)
	}
	defer log.Close()
	a.cmd = exec.Command(Binary(a.t, "nodeagent"), a.args...)
	a.cmd.Stdout, a.cmd.Stderr = log, log
	a.cmd.Env = append(os.Environ(), a.env...)
	if err := a.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	cmd, done := a.cmd, make(chan error, 1)
	a.done = done
	go func() { done <- cmd.Wait() }()
	a.conn, err = grpc.NewClient("unix://"+a.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(eager),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		a.t.Fatal(err)
	}
	if err := poll(startLimit, a.answers); err != nil {
		a.t.Fatalf("start agent: %v\n%s", err, a.LogTail())
	}
}

func (a *AgentProcess) answers() error {
	if a.Exited() {
		a.t.Fatalf("the agent ended before it answered\n%s", a.LogTail())
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := a.Runtime().Version(ctx, &runtimeapi.VersionRequest{}, grpc.WaitForReady(true))
	return err
}

// Exited tells whether the process has ended by itself.
func (a *AgentProcess) Exited() bool {
	select {
	case err := <-a.done:
		a.done <- err
		return true
	default:
		return false
	}
}

// Pid is the process ID of the running agent.
func (a *AgentProcess) Pid() int { return a.cmd.Process.Pid }

// Args is the command line without the program, for subcommands such as cleanup.
func (a *AgentProcess) Args() []string { return append([]string(nil), a.args...) }

// Kill9 kills the agent as the kernel would when it runs out of memory, and waits for its end.
func (a *AgentProcess) Kill9() { a.end(syscall.SIGKILL) }

// Stop asks the agent to end and waits for it; its supervisor and containers go on.
func (a *AgentProcess) Stop() { a.end(syscall.SIGTERM) }

func (a *AgentProcess) end(sig syscall.Signal) {
	a.t.Helper()
	if a.cmd == nil {
		return
	}
	_ = a.conn.Close()
	_ = a.cmd.Process.Signal(sig)
	select {
	case <-a.done:
	case <-time.After(stopLimit):
		_ = a.cmd.Process.Kill()
		<-a.done
		a.t.Errorf("the agent did not end within %v of %v\n%s", stopLimit, sig, a.LogTail())
	}
	a.cmd = nil
}

// Runtime is a client of the agent's runtime service.
func (a *AgentProcess) Runtime() runtimeapi.RuntimeServiceClient {
	return runtimeapi.NewRuntimeServiceClient(a.conn)
}

// Images is a client of the agent's image service.
func (a *AgentProcess) Images() runtimeapi.ImageServiceClient {
	return runtimeapi.NewImageServiceClient(a.conn)
}

// Conn is the connection to the agent's socket; it is replaced when the agent is started again.
func (a *AgentProcess) Conn() *grpc.ClientConn { return a.conn }

// Output is what a program left behind.
type Output struct {
	Stdout, Stderr string
	Code           int
}

// Nodectl runs bin/nodectl against this agent.
func (a *AgentProcess) Nodectl(args ...string) Output {
	a.t.Helper()
	return runWith(a.t, []string{"NODEAGENT_HOST=unix://" + a.Socket}, Binary(a.t, "nodectl"), args...)
}

// Run runs a program to its end, at most two minutes.
func Run(t testing.TB, program string, args ...string) Output {
	t.Helper()
	return runWith(t, nil, program, args...)
}

func runWith(t testing.TB, env []string, program string, args ...string) Output {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &stdout, &stderr, 5*time.Second
	cmd.Env = append(os.Environ(), env...)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s %s: %v", filepath.Base(program), strings.Join(args, " "), err)
	}
	return Output{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
}

// LogTail returns the end of the agent's log, for messages.
func (a *AgentProcess) LogTail() string {
	text, err := os.ReadFile(a.LogPath)
	if err != nil {
		return err.Error()
	}
	const most = 8 << 10
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return "--- end of the agent's log:\n" + string(text)
}

// cleanup takes the agent down, whatever state it is in, and removes its folders.
func (a *AgentProcess) cleanup() {
	a.t.Helper()
	failed := a.t.Failed()
	if failed {
		a.t.Log(a.LogTail())
	}
	if a.cmd != nil && !a.Exited() {
		a.removePods()
	}
	a.end(syscall.SIGTERM)
	out := Run(a.t, Binary(a.t, "nodeagent"), append([]string{"cleanup"}, a.args...)...)
	if out.Code != 0 {
		a.t.Errorf("nodeagent cleanup: exit code %d: %s%s", out.Code, out.Stdout, out.Stderr)
	}
	if failed && os.Getenv("NODEAGENT_TEST_KEEP") == "yes" {
		a.t.Logf("kept %s", a.Dir)
		return
	}
	if err := os.RemoveAll(a.Dir); err != nil {
		a.t.Errorf("remove the agent's folders: %v", err)
	}
}

func (a *AgentProcess) removePods() {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
	defer cancel()
	pods, err := a.Runtime().ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		a.t.Errorf("list pods for removal: %v", err)
		return
	}
	for _, pod := range pods.Items {
		if _, err := a.Runtime().RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod.Id}); err != nil {
			a.t.Errorf("remove pod %s: %v", pod.Id, err)
		}
	}
}
