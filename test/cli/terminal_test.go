package cli

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// patience bounds each wait for something that must be seen.
const patience = 30 * time.Second

// terminal is the command "terminal DIALOGUE PROGRAM ARGS": it runs a program
// on a pseudo-terminal of 80 columns and 24 lines. Each line of the file
// DIALOGUE says "send TEXT", in which Go's escapes count, "expect PATTERN", a
// regular expression for what is shown from where the last one was found, or
// "exit CODE".
func terminal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: terminal DIALOGUE PROGRAM [ARGS]")
	}
	cmd := exec.Command(find(ts, args[1]), args[2:]...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), append(cmd.Environ(), "NODEAGENT_HOST="+ts.Getenv("NODEAGENT_HOST"), "HOME="+ts.Getenv("HOME"), "PATH="+ts.Getenv("PATH"), "TERM=xterm")
	master, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: 80, Rows: 24})
	ts.Check(err)
	s := newScreen(master)
	defer s.close(cmd)
	for number, line := range strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n") {
		verb, rest, _ := strings.Cut(line, " ")
		switch verb {
		case "send":
			text, err := strconv.Unquote(`"` + rest + `"`)
			ts.Check(err)
			_, err = io.WriteString(master, text)
			ts.Check(err)
		case "expect":
			if !s.expect(regexp.MustCompile(rest)) {
				ts.Fatalf("line %d: no %q; on the screen is %q", number+1, rest, s.text())
			}
		case "exit":
			code, ok := s.exit(cmd)
			if want, _ := strconv.Atoi(rest); !ok || code != want {
				ts.Fatalf("line %d: ended %v with %d; on the screen is %q", number+1, ok, code, s.text())
			}
		default:
			ts.Fatalf("line %d: %q is neither send, expect nor exit", number+1, verb)
		}
	}
	ts.Logf("[terminal]\n%s", s.text())
}

// find looks a program up in the script's PATH.
func find(ts *testscript.TestScript, name string) string {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path := filepath.Join(dir, name); unix.Access(path, unix.X_OK) == nil {
			return path
		}
	}
	ts.Fatalf("no program %s", name)
	return ""
}

// screen keeps what a program shows.
type screen struct {
	master io.ReadCloser
	done   chan struct{}
	more   chan struct{}

	mu    sync.Mutex
	shown bytes.Buffer
	from  int
}

func newScreen(master io.ReadCloser) *screen {
	s := &screen{master: master, done: make(chan struct{}), more: make(chan struct{}, 1)}
	go func() {
		defer close(s.done)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			s.mu.Lock()
			s.shown.Write(b[:n])
			s.mu.Unlock()
			select {
			case s.more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

// expect waits for a pattern behind the last one that was found.
func (s *screen) expect(pattern *regexp.Regexp) bool {
	deadline := time.After(patience)
	for {
		text := s.text()
		if at := pattern.FindStringIndex(text[s.from:]); at != nil {
			s.from += at[1]
			return true
		}
		select {
		case <-s.more:
		case <-deadline:
			return false
		case <-s.done:
			return pattern.MatchString(s.text()[s.from:])
		}
	}
}

// exit waits for the program's end.
func (s *screen) exit(cmd *exec.Cmd) (code int, ok bool) {
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return -1, false
		}
		return cmd.ProcessState.ExitCode(), true
	case <-time.After(patience):
		_ = cmd.Process.Kill()
		<-ended
		return -1, false
	}
}

func (s *screen) close(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = unix.Kill(cmd.Process.Pid, unix.SIGKILL)
		_ = cmd.Wait()
	}
	_ = s.master.Close()
	<-s.done
}
