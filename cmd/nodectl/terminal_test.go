package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"golang.org/x/sys/unix"
)

// patience bounds each wait for something that must happen.
const patience = 20 * time.Second

// onTerminal is nodectl on a pseudo-terminal, with an agent that tells what
// it is sent.
type onTerminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	exited chan error
	// sent are the client's messages; the test answers by end.
	sent chan *nodev1.AttachRequest
	end  chan int32
	// killed has the signals that the container is sent.
	killed chan string
	// before is the terminal's mode before nodectl ran.
	before unix.Termios

	mu     sync.Mutex
	screen bytes.Buffer
}

func startOnTerminal(t *testing.T, args ...string) *onTerminal {
	t.Helper()
	o := &onTerminal{t: t, sent: make(chan *nodev1.AttachRequest, 64), end: make(chan int32, 1), exited: make(chan error, 1), killed: make(chan string, 8)}
	agent := newFakeAgent()
	agent.kill = func(r *nodev1.KillRequest) error {
		o.killed <- r.GetSignal()
		return nil
	}
	serve := func(stream nodev1.Containers_AttachServer) error {
		go func() {
			for {
				m, err := stream.Recv()
				if err != nil {
					return
				}
				o.sent <- m
				if m.GetStart() != nil {
					_ = attachStream{stream}.attached()
				}
			}
		}()
		select {
		case code := <-o.end:
			return attachStream{stream}.exit(code)
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
	agent.create = func(*nodev1.CreateRequest) (*nodev1.CreateResponse, error) {
		agent.attach = serve
		return &nodev1.CreateResponse{Id: newID}, nil
	}
	dir, err := os.MkdirTemp("", "nodectl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	host := agent.serve(t, dir)

	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	o.master = master
	o.before = o.mode()
	if err := pty.Setsize(master, &pty.Winsize{Cols: 80, Rows: 24}); err != nil {
		t.Fatal(err)
	}
	o.cmd = exec.Command("nodectl", args...)
	o.cmd.Env = append(os.Environ(), "NODEAGENT_HOST="+host, "HOME="+dir, "GORACE=atexit_sleep_ms=0")
	o.cmd.Stdin, o.cmd.Stdout, o.cmd.Stderr = slave, slave, slave
	o.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := o.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The slave stays open here, so that the master can be asked after the end.
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(screen{o}, master)
	}()
	go func() { o.exited <- o.cmd.Wait() }()
	t.Cleanup(func() {
		_ = o.cmd.Process.Kill()
		_ = slave.Close()
		_ = master.Close()
		<-read
	})
	return o
}

// screen keeps what is shown.
type screen struct{ o *onTerminal }

func (s screen) Write(b []byte) (int, error) {
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	return s.o.screen.Write(b)
}

func (o *onTerminal) mode() unix.Termios {
	o.t.Helper()
	mode, err := unix.IoctlGetTermios(int(o.master.Fd()), unix.TCGETS)
	if err != nil {
		o.t.Fatal(err)
	}
	return *mode
}

func (o *onTerminal) write(text string) {
	o.t.Helper()
	if _, err := o.master.WriteString(text); err != nil {
		o.t.Fatal(err)
	}
}

// next is the client's next message.
func (o *onTerminal) next() *nodev1.AttachRequest {
	o.t.Helper()
	select {
	case m := <-o.sent:
		return m
	case <-time.After(patience):
		o.t.Fatal("nodectl sent nothing")
		return nil
	}
}

// typed gathers input until it is as long as wanted.
func (o *onTerminal) typed(want string) {
	o.t.Helper()
	got := ""
	for len(got) < len(want) {
		got += string(o.next().GetStdin())
	}
	if got != want {
		o.t.Fatalf("the agent got %q, want %q", got, want)
	}
}

// shows waits until something is on the screen.
func (o *onTerminal) shows(want string) {
	o.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		o.mu.Lock()
		text := o.screen.String()
		o.mu.Unlock()
		if strings.Contains(text, want) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			o.t.Fatalf("the screen shows %q, want %q", text, want)
		}
	}
}

// ends waits for nodectl's end and checks the terminal's mode.
func (o *onTerminal) ends(code int) {
	o.t.Helper()
	select {
	case <-o.exited:
	case <-time.After(patience):
		o.t.Fatal("nodectl does not end")
	}
	if got := o.cmd.ProcessState.ExitCode(); got != code {
		o.t.Errorf("nodectl ended with %d, want %d", got, code)
	}
	if o.mode() != o.before {
		o.t.Error("the terminal's mode was not restored")
	}
}

// attached waits until the streams are joined and the terminal is raw.
func (o *onTerminal) attached() {
	o.t.Helper()
	start := o.next().GetStart()
	if start.GetSize().GetWidth() != 80 || start.GetSize().GetHeight() != 24 || !start.GetStdin() || !start.GetStart() {
		o.t.Fatalf("wrong start: %v", start)
	}
	if mode := o.mode(); mode.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
		o.t.Error("the terminal is not raw")
	}
}

func TestTerminalIsRawAndFollowsItsSize(t *testing.T) {
	o := startOnTerminal(t, "run", "-it", "busybox", "sh")
	o.attached()
	o.write("ls\x03\x1a\r") // Ctrl-C and Ctrl-Z belong to the container
	o.typed("ls\x03\x1a\r")
	if err := pty.Setsize(o.master, &pty.Winsize{Cols: 101, Rows: 31}); err != nil {
		t.Fatal(err)
	}
	if size := o.next().GetResize(); size.GetWidth() != 101 || size.GetHeight() != 31 {
		t.Errorf("new size is %v", size)
	}
	o.end <- 7
	o.ends(7)
}

func TestDetachKeysLeaveTheContainer(t *testing.T) {
	o := startOnTerminal(t, "run", "-it", "busybox", "sh")
	o.attached()
	o.write("a\x10b") // Ctrl-P alone is the container's
	o.typed("a\x10b")
	o.write("\x10\x11")
	o.shows("read escape sequence")
	o.ends(0)
}

func TestDetachKeysOfOnesOwn(t *testing.T) {
	o := startOnTerminal(t, "run", "-it", "--detach-keys", "ctrl-x,x", "busybox", "sh")
	o.attached()
	o.write("\x10\x11")
	o.typed("\x10\x11")
	o.write("\x18x")
	o.shows("read escape sequence")
	o.ends(0)
}

// Those that docker's configuration names hold where no flag names others.
func TestDetachKeysOfDockersConfiguration(t *testing.T) {
	home := t.TempDir()
	t.Setenv("DOCKER_CONFIG", home)
	if err := os.WriteFile(filepath.Join(home, "config.json"), []byte(`{"detachKeys": "ctrl-e,e"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	o := startOnTerminal(t, "run", "-it", "busybox", "sh")
	o.attached()
	o.write("\x05e")
	o.shows("read escape sequence")
	o.ends(0)
}

func TestTerminalIsRestoredBySignals(t *testing.T) {
	for name, signal := range map[string]unix.Signal{"TERM": unix.SIGTERM, "HUP": unix.SIGHUP, "QUIT": unix.SIGQUIT} {
		t.Run(name, func(t *testing.T) {
			o := startOnTerminal(t, "run", "-it", "--sig-proxy=false", "busybox", "sh")
			o.attached()
			if err := o.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			o.ends(128 + int(signal))
		})
	}
}

// As docker's, a run sends signals on with a terminal too: what kills a job
// that is one must end its container.
func TestSignalsReachTheContainerOnATerminal(t *testing.T) {
	o := startOnTerminal(t, "run", "-it", "busybox", "sh")
	o.attached()
	if err := o.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case name := <-o.killed:
		if name != "SIGTERM" {
			t.Errorf("the container got %s", name)
		}
	case <-time.After(patience):
		t.Fatal("the container got no signal")
	}
	o.end <- 143
	o.ends(143)
}

// Even a death that nodectl cannot see coming leaves the terminal as it was.
func TestTerminalIsRestoredAfterSIGKILL(t *testing.T) {
	o := startOnTerminal(t, "run", "-it", "busybox", "sh")
	o.attached()
	if err := o.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-o.exited
	deadline := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for o.mode() != o.before {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the terminal's mode was not restored")
		}
	}
}

func TestPullDrawsBarsOnATerminal(t *testing.T) {
	o := startOnTerminal(t, "pull", "alpine")
	o.shows("cccccccccccc: Pulling fs layer")
	o.shows("cccccccccccc: Downloading [=")
	o.shows("\x1b[1A\x1b[2K\rcccccccccccc: Pull complete")
	o.shows("Status: Downloaded newer image for alpine:latest")
	o.ends(0)
}

func TestSignalsReachTheContainer(t *testing.T) {
	agent := newFakeAgent()
	attached, killed := make(chan struct{}), make(chan string, 1)
	agent.create = func(*nodev1.CreateRequest) (*nodev1.CreateResponse, error) {
		agent.attach = func(stream nodev1.Containers_AttachServer) error {
			_ = attachStream{stream}.attached()
			close(attached)
			<-killed
			return attachStream{stream}.exit(130)
		}
		return &nodev1.CreateResponse{Id: newID}, nil
	}
	agent.kill = func(req *nodev1.KillRequest) error {
		if req.GetSignal() != "SIGINT" || req.GetContainer() != newID {
			t.Errorf("got %v", req)
		}
		killed <- req.GetSignal()
		return nil
	}
	dir := t.TempDir()
	cmd := exec.Command("nodectl", "run", "busybox", "sleep", "100")
	cmd.Env = append(os.Environ(), "NODEAGENT_HOST="+agent.serve(t, dir), "HOME="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-attached
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("ended with %d", cmd.ProcessState.ExitCode())
	}
}

func TestSignalsEndNodectlWhereTheAgentHangs(t *testing.T) {
	agent := newFakeAgent()
	attached, release := make(chan struct{}), make(chan struct{})
	agent.create = func(*nodev1.CreateRequest) (*nodev1.CreateResponse, error) {
		agent.attach = func(stream nodev1.Containers_AttachServer) error {
			_ = attachStream{stream}.attached()
			close(attached)
			<-release
			return nil
		}
		return &nodev1.CreateResponse{Id: newID}, nil
	}
	agent.kill = func(*nodev1.KillRequest) error {
		<-release
		return nil
	}
	dir := t.TempDir()
	host := agent.serve(t, dir)
	t.Cleanup(func() { close(release) }) // before the server waits for its calls
	var said bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "nodectl", "run", "busybox", "sleep", "100")
	cmd.Env, cmd.Stderr = append(os.Environ(), "NODEAGENT_HOST="+host, "HOME="+dir), &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	<-attached
	again := time.NewTicker(5 * time.Millisecond) // two at once are one
	defer again.Stop()
	deadline := time.After(patience)
	for {
		select {
		case <-again.C:
			_ = cmd.Process.Signal(os.Interrupt)
		case <-ended:
			if code := cmd.ProcessState.ExitCode(); code != 1 || said.String() != "\ngot 3 SIGTERM/SIGINTs, forcefully exiting\n" {
				t.Errorf("ended with %d, having said %q", code, said.String())
			}
			return
		case <-deadline:
			_ = cmd.Process.Kill()
			t.Fatal("three interrupts did not end it")
		}
	}
}
