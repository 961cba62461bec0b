package crictl

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

// outputLimit is how long a command that runs until it is stopped may take to say what is expected of it.
const outputLimit = 20 * time.Second

// session is a pod with containers that the commands work on, one after the other.
type session struct {
	t        *testing.T
	program  string
	endpoint string
	dir      string
	config   string // crictl's configuration file
	podFile  string
	pod      string // ID of the pod
	web      string // ID of a container with a web server
	shell    string // ID of a container with a shell that reads its standard input
}

func newSession(t *testing.T) *session {
	s := &session{t: t, program: testenv.Tool(t, "crictl"), dir: t.TempDir()}
	if s.endpoint = os.Getenv("NODEAGENT_TEST_ENDPOINT"); s.endpoint == "" {
		agent := testenv.Agent(t, testenv.AgentOptions{Registry: testenv.Registry(t)})
		s.endpoint = "unix://" + agent.Socket
	}
	s.config = filepath.Join(s.dir, "crictl.yaml")
	if err := os.WriteFile(s.config, []byte("timeout: 60\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.podFile = s.write("pod.json", map[string]any{
		"metadata":      map[string]any{"name": "session", "namespace": "crictl", "uid": "session-1", "attempt": 1},
		"hostname":      "session",
		"log_directory": filepath.Join(s.dir, "logs"),
		"labels":        map[string]string{"app": "session"},
		"linux":         map[string]any{},
	})
	return s
}

func (s *session) write(name string, value any) string {
	s.t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		s.t.Fatal(err)
	}
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// container writes a container's configuration.
func (s *session) container(name, image string, more map[string]any) string {
	s.t.Helper()
	config := map[string]any{
		"metadata": map[string]any{"name": name},
		"image":    map[string]any{"image": image},
		"log_path": name + ".log",
		"linux":    map[string]any{},
	}
	for key, value := range more {
		config[key] = value
	}
	return s.write(name+".json", config)
}

func (s *session) args(args []string) []string {
	return append([]string{"--config", s.config, "--runtime-endpoint", s.endpoint, "--image-endpoint", s.endpoint}, args...)
}

// run runs a command that must succeed and returns what it wrote to standard output.
func (s *session) run(t *testing.T, args ...string) string {
	t.Helper()
	out := testenv.Run(t, s.program, s.args(args)...)
	if out.Code != 0 {
		t.Fatalf("crictl %s: exit code %d: %s", strings.Join(args, " "), out.Code, out.Stderr)
	}
	return strings.TrimSpace(out.Stdout)
}

// refused runs a command that must fail, and returns what it said.
func (s *session) refused(t *testing.T, args ...string) string {
	t.Helper()
	out := testenv.Run(t, s.program, s.args(args)...)
	if out.Code == 0 {
		t.Fatalf("crictl %s: succeeded: %s", strings.Join(args, " "), out.Stdout)
	}
	return out.Stderr
}

// contains runs a command whose output must hold every one of the texts.
func (s *session) contains(t *testing.T, args []string, texts ...string) {
	t.Helper()
	out := s.run(t, args...)
	for _, text := range texts {
		if !strings.Contains(out, text) {
			t.Errorf("crictl %s: no %q in:\n%s", strings.Join(args, " "), text, out)
		}
	}
}

// onTerminal runs a command whose standard streams are a terminal, and returns what it showed.
func (s *session) onTerminal(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), outputLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.program, s.args(args)...)
	terminal, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	shown, _ := io.ReadAll(terminal) // ends with EIO once the other side is closed
	if err := cmd.Wait(); err != nil {
		t.Errorf("crictl %s: %v: %s", strings.Join(args, " "), err, shown)
	}
	return string(shown)
}

// process is a command that runs until it is stopped.
type process struct {
	t     *testing.T
	stdin io.WriteCloser
	lines chan string
}

// start starts a command; it is stopped when the test ends.
func (s *session) start(t *testing.T, args ...string) *process {
	t.Helper()
	cmd := exec.Command(s.program, s.args(args)...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = writer, writer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	p := &process{t: t, stdin: stdin, lines: make(chan string, 1024)}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		defer close(p.lines)
		for scanner := bufio.NewScanner(reader); scanner.Scan(); {
			select {
			case p.lines <- scanner.Text():
			default: // nobody reads any more
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		<-drained
		reader.Close()
	})
	return p
}

// expect waits for a line that holds the text and returns it.
func (p *process) expect(text string) string {
	p.t.Helper()
	limit := time.After(outputLimit)
	var seen []string
	for {
		select {
		case line, open := <-p.lines:
			if !open {
				p.t.Fatalf("the command ended without %q; it said:\n%s", text, strings.Join(seen, "\n"))
			}
			if strings.Contains(line, text) {
				return line
			}
			seen = append(seen, line)
		case <-limit:
			p.t.Fatalf("no %q within %v; it said:\n%s", text, outputLimit, strings.Join(seen, "\n"))
		}
	}
}

// shellImage and webImage are what the containers run.
const (
	shellImage = images.Busybox
	webImage   = images.Nginx
)
