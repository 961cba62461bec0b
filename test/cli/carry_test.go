package cli

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// carryLimit is how long one command with its data may take.
const carryLimit = time.Minute

// ladder are sizes of what is carried both ways: about the buffers on the way, and larger than all of them.
var ladder = []int{1<<16 - 1, 1<<20 + 1, 16 << 20, 64 << 20}

// slowSize is what slow readers are given.
const slowSize = 1<<22 + 1

// carrier carries data through an agent.
type carrier struct {
	*testenv.AgentProcess
	t *testing.T
	// data is what is carried, want its digest; file has it too.
	data []byte
	want string
	file string
	slow bool
}

// noise is data of which no part is like another.
func noise(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data) // never fails
	return data
}

// digest reads to the end.
func digest(r io.Reader) string {
	h := sha256.New()
	n, _ := io.Copy(h, r)
	return fmt.Sprintf("%d bytes, %x", n, h.Sum(nil)[:8])
}

// slowReader takes a little at a time.
type slowReader struct{ io.Reader }

func (s slowReader) Read(p []byte) (int, error) {
	<-time.NewTimer(100 * time.Microsecond).C
	return s.Reader.Read(p[:min(len(p), 8<<10)])
}

// carry runs nodectl, with the data as input where it is wanted, and gives digests of its outputs.
func (c *carrier) carry(input bool, args ...string) (out, stderr string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), carryLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, testenv.Binary(c.t, "nodectl"), args...)
	cmd.Env = append(os.Environ(), "NODEAGENT_HOST=unix://"+c.Socket)
	if input {
		cmd.Stdin = bytes.NewReader(c.data)
	}
	readers, err := pipes(cmd)
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	if c.slow {
		readers = [2]io.Reader{slowReader{readers[0]}, slowReader{readers[1]}}
	}
	second := make(chan string, 1)
	go func() { second <- digest(readers[1]) }()
	out, stderr = digest(readers[0]), <-second
	if err := cmd.Wait(); err != nil {
		c.t.Errorf("nodectl %v: %v", args, err)
	}
	return out, stderr
}

func pipes(cmd *exec.Cmd) ([2]io.Reader, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return [2]io.Reader{}, err
	}
	stderr, err := cmd.StderrPipe()
	return [2]io.Reader{out, stderr}, err
}

// expect checks what came.
func (c *carrier) expect(what, got, want string) {
	c.t.Helper()
	if got != want {
		c.t.Errorf("%s: %s, want %s (%d bytes, slow %v)", what, got, want, len(c.data), c.slow)
	}
}

// What goes in comes out, byte for byte, by whichever way, however large it is and however slow its reader; what is written
// to standard error stays apart, and the end of the input arrives while the output goes on.
func TestWhatIsCarriedIsWhole(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	agent := testenv.Agent(t, testenv.AgentOptions{Registry: testenv.Registry(t)})
	agent.Nodectl("pull", "-q", "busybox")
	agent.Nodectl("run", "-d", "--name", "idle", "busybox", "sleep", "1000")
	for _, size := range append(ladder, slowSize) {
		c := &carrier{AgentProcess: agent, t: t, data: noise(size), slow: size == slowSize, file: filepath.Join(t.TempDir(), "data")}
		c.want = digest(bytes.NewReader(c.data))
		if err := os.WriteFile(c.file, c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		c.streams()
		c.archives()
		if size <= 16<<20 {
			c.attachments()
		}
		if size <= 1<<22+1 {
			c.logs()
		}
	}
}

// streams go through run and exec.
func (c *carrier) streams() {
	for _, command := range [][]string{{"run", "--rm", "-i", "busybox"}, {"exec", "-i", "idle"}} {
		out, stderr := c.carry(true, append(command, "tee", "/dev/stderr")...)
		c.expect(command[0]+" -i, standard output", out, c.want)
		c.expect(command[0]+" -i, standard error", stderr, c.want)
	}
	out, _ := c.carry(true, "exec", "-i", "idle", "sh", "-c", "cat >/dev/null; cat /etc/hostname; cat /etc/hostname")
	if out[:3] != "26 " {
		c.t.Errorf("after the end of the input: %s", out)
	}
}

// attachments go through start -ai, and through an attach to a container that runs.
func (c *carrier) attachments() {
	c.Nodectl("create", "-i", "--name", "echo", "busybox", "cat")
	out, _ := c.carry(true, "start", "-ai", "echo")
	c.expect("start -ai", out, c.want)
	c.Nodectl("start", "echo")
	out, _ = c.carry(true, "attach", "echo")
	c.expect("attach", out, c.want)
	c.Nodectl("rm", "-f", "echo")
	// Two who only look see all of what is written once they are there, which the dots tell.
	c.Nodectl("run", "-d", "--name", "gate", "-v", c.file+":/data", "--log-driver", "none", "busybox", "sh", "-c",
		"while [ ! -e /go ]; do echo -n .; usleep 5000; done; echo; cat /data")
	looking, there := make(chan string, 2), make(chan struct{}, 2)
	for range 2 {
		go func() { looking <- c.look(there) }()
	}
	<-there
	<-there
	c.Nodectl("exec", "gate", "touch", "/go")
	c.expect("who looks", <-looking, c.want)
	c.expect("who looks too", <-looking, c.want)
	c.Nodectl("rm", "-f", "gate")
}

// look attaches to the gate, says when it is there, and gives the digest of what comes after the dots.
func (c *carrier) look(there chan<- struct{}) string {
	ctx, cancel := context.WithTimeout(context.Background(), carryLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, testenv.Binary(c.t, "nodectl"), "attach", "--no-stdin", "gate")
	cmd.Env = append(os.Environ(), "NODEAGENT_HOST=unix://"+c.Socket)
	readers, err := pipes(cmd)
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		there <- struct{}{}
		return err.Error()
	}
	out := bufio.NewReader(readers[0])
	_, _ = out.ReadByte()
	there <- struct{}{}
	_, _ = out.ReadString('\n')
	var rest io.Reader = out
	if c.slow {
		rest = slowReader{out}
	}
	got := digest(rest)
	if err := cmd.Wait(); err != nil {
		return err.Error()
	}
	return got
}

// archives go through cp, in both directions, and export.
func (c *carrier) archives() {
	c.Nodectl("create", "--name", "box", "busybox", "true")
	for _, container := range []string{"idle", "box"} {
		if out := c.Nodectl("cp", c.file, container+":/data"); out.Code != 0 {
			c.t.Errorf("cp: %s", out.Stderr)
		}
		back := filepath.Join(c.t.TempDir(), "back")
		if out := c.Nodectl("cp", container+":/data", back); out.Code != 0 {
			c.t.Errorf("cp: %s", out.Stderr)
		}
		f, err := os.Open(back)
		if err != nil {
			c.t.Fatal(err)
		}
		c.expect("cp", digest(f), c.want)
		_ = f.Close()
		exported := filepath.Join(c.t.TempDir(), "tar")
		if out := c.Nodectl("export", "-o", exported, container); out.Code != 0 {
			c.t.Errorf("export: %s", out.Stderr)
		}
		c.expect("export", member(c.t, exported, "data"), c.want)
	}
	c.Nodectl("rm", "box")
}

// member is the digest of a file of a tar.
func member(t *testing.T, path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Clean(h.Name) == name {
			return digest(r)
		}
	}
}

// logs keep whatever is written, newlines and none, and both outputs apart; following ends with the container.
func (c *carrier) logs() {
	c.Nodectl("run", "-d", "--name", "said", "-v", c.file+":/data", "busybox", "sh", "-c", "cat /data; echo; tee /dev/stderr </data >/dev/null; echo >&2")
	line := digest(io.MultiReader(bytes.NewReader(c.data), bytes.NewReader([]byte("\n"))))
	for _, args := range [][]string{{"logs", "-f", "said"}, {"logs", "said"}} {
		out, stderr := c.carry(false, args...)
		c.expect("logs, standard output", out, line)
		c.expect("logs, standard error", stderr, line)
	}
	c.Nodectl("rm", "-f", "said")
}
