package server_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/supervisor"
)

// terminal is the test's side of an attachment.
type terminal struct {
	t       *testing.T
	in      *os.File // written by the test
	out     *os.File // read by the test
	streams supervisor.Streams

	mu   sync.Mutex
	got  bytes.Buffer
	done chan struct{}
}

// newTerminal makes pipes and begins to read the output unless slow is set.
func newTerminal(t *testing.T, slow bool) *terminal {
	t.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &terminal{t: t, in: inW, out: outR, done: make(chan struct{})}
	c.streams = supervisor.Streams{Stdin: inR, Stdout: outW}
	t.Cleanup(func() {
		c.sent()
		inW.Close()
		outR.Close()
	})
	if slow {
		return c
	}
	go func() {
		defer close(c.done)
		buf := make([]byte, 4096)
		for {
			n, err := outR.Read(buf)
			c.mu.Lock()
			c.got.Write(buf[:n])
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return c
}

// sent closes our copies of what the supervisor has got.
func (c *terminal) sent() {
	c.streams.Stdin.Close()
	c.streams.Stdout.Close()
}

func (c *terminal) attach(n *node, id string) {
	c.t.Helper()
	if err := n.Attach(c.t.Context(), id, c.streams); err != nil {
		c.t.Fatal(err)
	}
	c.sent()
}

func (c *terminal) output() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got.String()
}

func (c *terminal) await(text string) {
	c.t.Helper()
	testenv.Eventually(c.t, limit, fmt.Sprintf("output holds %q", text), func() error {
		if got := c.output(); !strings.Contains(got, text) {
			return fmt.Errorf("output is %.300q", got)
		}
		return nil
	})
}

// awaitEOF waits for the end of the output.
func (c *terminal) awaitEOF() {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(limit):
		c.t.Fatal("output does not end")
	}
}

func (c *terminal) write(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.in, text); err != nil {
		c.t.Fatal(err)
	}
}

func TestAttachSeveralClients(t *testing.T) {
	n := startNode(t)
	c := n.container("one", "while read x; do echo got $x; done; echo end")
	c.Stdin, c.StdinOnce = true, true
	first := newTerminal(t, false)
	c.Attach = first.streams
	n.start(c)
	first.sent()
	second := newTerminal(t, false)
	second.attach(n, "one")
	first.write("a\n")
	first.await("got a\n")
	second.await("got a\n")
	second.write("b\n")
	first.await("got b\n")
	// The second's going changes nothing.
	second.in.Close()
	second.out.Close()
	first.write("c\n")
	first.await("got c\n")
	// The first's end is the input's end.
	first.in.Close()
	first.awaitEOF()
	if got := first.output(); got != "got a\ngot b\ngot c\nend\n" {
		t.Errorf("output is %q", got)
	}
	if exit := n.exit("one"); exit.Code != 0 {
		t.Errorf("exit %+v", exit)
	}
	log := readLog(t, filepath.Join(n.logs, "one.log"))
	if len(log) != 4 || log[3] != (record{"stdout", "F", "end"}) {
		t.Errorf("log %v", log)
	}
	late := newTerminal(t, false)
	if err := n.Attach(t.Context(), "one", late.streams); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("attach to an ended container: %v", err)
	}
}

func TestStdinStaysOpenWithoutOnce(t *testing.T) {
	n := startNode(t)
	c := n.container("one", "while read x; do echo got $x; done; echo end")
	c.Stdin = true
	n.start(c)
	for _, word := range []string{"a", "b"} {
		client := newTerminal(t, false)
		client.attach(n, "one")
		client.write(word + "\n")
		client.await("got " + word + "\n")
		client.in.Close()
		client.out.Close()
	}
	if st, err := n.state("one"); err != nil || st.Status != supervisor.StatusRunning {
		t.Errorf("state %+v, %v", st, err)
	}
}

func TestNoStdinIsEmpty(t *testing.T) {
	n := startNode(t)
	n.start(n.container("one", "cat; readlink /proc/self/fd/0; ls /proc/self/fd"))
	n.exit("one")
	log := readLog(t, filepath.Join(n.logs, "one.log"))
	if len(log) == 0 || log[0].text != "/dev/null" {
		t.Errorf("log %v", log)
	}
	// 0, 1, 2 and the one that ls reads the directory by.
	if len(log) != 5 {
		t.Errorf("descriptors in the container: %v", log)
	}
}

// TestSlowClientIsCutOff attaches a client that never reads.
func TestSlowClientIsCutOff(t *testing.T) {
	n := startNode(t)
	c := n.container("one", "read x; head -c 20000000 /dev/zero | tr '\\0' x; echo; echo end")
	c.Stdin = true
	slow := newTerminal(t, true)
	c.Attach = slow.streams
	n.start(c)
	slow.sent()
	slow.write("go\n")
	if exit := n.exit("one"); exit.Code != 0 {
		t.Errorf("exit %+v", exit)
	}
	total := 0
	for _, r := range readLog(t, filepath.Join(n.logs, "one.log")) {
		total += len(r.text)
	}
	if total != 20000000+len("end") {
		t.Errorf("%d bytes are in the log", total)
	}
}

// TestSlowClientGetsAll attaches one that reads little at a time, and is no reason to cut it off.
func TestSlowClientGetsAll(t *testing.T) {
	n := startNode(t)
	const size = 8 << 20
	c := n.container("one", fmt.Sprintf("read x; head -c %d /dev/zero | tr '\\0' x", size))
	c.Stdin = true
	slow := newTerminal(t, true)
	c.Attach = slow.streams
	n.start(c)
	slow.sent()
	slow.write("go\n")
	var got int
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for buffer := make([]byte, 16<<10); ; <-tick.C {
		n, err := slow.out.Read(buffer)
		if got += n; err != nil {
			break
		}
	}
	if got != size {
		t.Errorf("%d bytes came", got)
	}
}

// TestWaitingClientGetsAll attaches one that reads late but wants everything.
func TestWaitingClientGetsAll(t *testing.T) {
	n := startNode(t)
	const size = 20000000
	c := n.container("one", fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x", size))
	slow := newTerminal(t, true)
	c.Attach = slow.streams
	c.Attach.Wait = true
	n.start(c)
	slow.sent()
	got, err := io.Copy(io.Discard, slow.out)
	if err != nil || got != size {
		t.Errorf("%d bytes came, %v", got, err)
	}
}

func TestTerminal(t *testing.T) {
	n := startNode(t)
	c := n.container("one", "stty size; while read x; do stty size; echo got $x; done")
	c.Spec.Process.Terminal = true
	c.Stdin = true
	client := newTerminal(t, false)
	c.Attach = client.streams
	n.start(c)
	client.sent()
	client.await("0 0\r\n")
	if err := n.Resize(t.Context(), "one", 132, 43); err != nil {
		t.Fatal(err)
	}
	client.write("a\n")
	client.await("43 132\r\ngot a\r\n")
	client.write("\x04")
	client.awaitEOF()
	if exit := n.exit("one"); exit.Code != 0 {
		t.Errorf("exit %+v", exit)
	}
	n.awaitLog("one", "stdout F got a\r\n")
	n.start(n.container("two", "sleep 1000"))
	if err := n.Resize(t.Context(), "two", 1, 1); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("resize without a terminal: %v", err)
	}
}

func TestLogFraming(t *testing.T) {
	n := startNode(t)
	c := n.container("one", "echo; echo short; head -c 25 /dev/zero | tr '\\0' x; echo; head -c 10 /dev/zero | tr '\\0' y; echo; echo -n tail")
	c.MaxLogLine = 10
	c.Spec.Process.Args[0] = "/bin/sh"
	n.start(c)
	n.exit("one")
	want := []record{
		{"stdout", "F", ""},
		{"stdout", "F", "short"},
		{"stdout", "P", strings.Repeat("x", 10)},
		{"stdout", "P", strings.Repeat("x", 10)},
		{"stdout", "F", strings.Repeat("x", 5)},
		{"stdout", "F", strings.Repeat("y", 10)},
		{"stdout", "P", "tail"},
	}
	got := readLog(t, filepath.Join(n.logs, "one.log"))
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("log is\n%v, not\n%v", got, want)
	}
}

// TestReopenLogLosesNothing rotates a log that is being written.
func TestReopenLogLosesNothing(t *testing.T) {
	n := startNode(t)
	const lines = 200000
	c := n.container("one", fmt.Sprintf("seq 1 %d", lines))
	path := c.LogPath
	n.start(c)
	rotated := 0
	for {
		next := fmt.Sprintf("%s.%04d", path, rotated)
		if err := os.Rename(path, next); err != nil {
			t.Fatal(err)
		}
		err := n.ReopenLog(t.Context(), "one")
		if errdefs.IsFailedPrecondition(err) {
			if _, err := os.Stat(path); err == nil {
				t.Error("a refused reopening made a file")
			}
			rotated++
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		rotated++
	}
	next := 1
	for i := range rotated {
		for _, r := range readLog(t, fmt.Sprintf("%s.%04d", path, i)) {
			if r.text != fmt.Sprint(next) {
				t.Fatalf("line %q comes in place of %d, in part %d", r.text, next, i)
			}
			next++
		}
	}
	if next != lines+1 {
		t.Errorf("%d lines are in the logs", next-1)
	}
	t.Logf("%d rotations", rotated)
}

// TestUnwritableLogHoldsNothingUp makes the log fail.
func TestUnwritableLogHoldsNothingUp(t *testing.T) {
	n := startNode(t)
	c := n.container("one", "head -c 3000000 /dev/zero | tr '\\0' '\\n'; exit 6")
	c.LogPath = "/dev/full"
	n.start(c)
	if exit := n.exit("one"); exit.Code != 6 {
		t.Errorf("exit %+v", exit)
	}
}
