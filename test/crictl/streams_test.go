package crictl

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// streamLimit is how long one command with its data may take.
const streamLimit = time.Minute

// ladder are sizes at which streams have been cut elsewhere, and one larger than all buffers on the way.
var ladder = []int{1<<16 - 1, 1 << 20, 1<<20 + 1, 1<<22 - 1, 16 << 20}

// noise is data of which no part is like another.
func noise(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data) // never fails
	return data
}

// slowReader takes a little at a time.
type slowReader struct{ io.Reader }

func (s slowReader) Read(p []byte) (int, error) {
	timer := time.NewTimer(100 * time.Microsecond)
	<-timer.C
	return s.Reader.Read(p[:min(len(p), 8<<10)])
}

// digest reads to the end.
func digest(r io.Reader) string {
	h := sha256.New()
	n, _ := io.Copy(h, r)
	return fmt.Sprintf("%d bytes, %x", n, h.Sum(nil)[:8])
}

// carry runs crictl with input and gives digests of its two outputs. slow reads them slowly.
func (s *session) carry(t *testing.T, input []byte, slow bool, args ...string) (out, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), streamLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.program, s.args(args)...)
	cmd.Stdin = bytes.NewReader(input)
	var readers [2]io.Reader
	for i, open := range []func() (io.ReadCloser, error){cmd.StdoutPipe, cmd.StderrPipe} {
		r, err := open()
		if err != nil {
			t.Fatal(err)
		}
		if readers[i] = r; slow {
			readers[i] = slowReader{r}
		}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	second := make(chan string, 1)
	go func() { second <- digest(readers[1]) }()
	out, stderr = digest(readers[0]), <-second
	if err := cmd.Wait(); err != nil {
		t.Errorf("crictl %v: %v", args, err)
	}
	return out, stderr
}

// What goes through exec and attach arrives whole, in either protocol, whatever its size and however slow its reader is;
// what is written to standard error stays apart; and the end of the input arrives while the output goes on.
func TestStreamsAreWhole(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	s := newSession(t)
	s.pull(t)
	s.pod = s.run(t, "runp", s.podFile)
	idle := s.container("idle", shellImage, map[string]any{"command": []string{"sleep", "1000"}})
	id := s.run(t, "create", s.pod, idle, s.podFile)
	s.run(t, "start", id)
	for _, transport := range []string{"spdy", "websocket"} {
		for _, size := range ladder {
			for _, slow := range []bool{false, true} {
				if slow && size != 1<<22-1 {
					continue
				}
				data := noise(size)
				want := digest(bytes.NewReader(data))
				what := fmt.Sprintf("%s, %d bytes, slow %v", transport, size, slow)
				if out, stderr := s.carry(t, data, slow, "exec", "-i", "-r", transport, id, "tee", "/dev/stderr"); out != want || stderr != want {
					t.Errorf("exec, %s: %s; stderr %s", what, out, stderr)
				}
				s.attached(t, what, data, slow, transport)
			}
		}
	}
}

// attached sends data to a container that writes it back, and ends with its input.
func (s *session) attached(t *testing.T, what string, data []byte, slow bool, transport string) {
	t.Helper()
	config := s.container("cat", shellImage, map[string]any{
		"command": []string{"sh", "-c", "cat; echo end"}, "stdin": true, "stdin_once": true, "log_path": "",
	})
	id := s.run(t, "create", s.pod, config, s.podFile)
	s.run(t, "start", id)
	want := digest(io.MultiReader(bytes.NewReader(data), bytes.NewReader([]byte("end\n"))))
	if out, _ := s.carry(t, data, slow, "attach", "-i", "-r", transport, id); out != want {
		t.Errorf("attach, %s: %s, want %s", what, out, want)
	}
	s.run(t, "rm", "-f", id)
}
