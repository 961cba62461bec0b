package pidfd

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

func TestWait(t *testing.T) {
	for script, want := range map[string]Status{
		"exit 3":     {Code: 3, Known: true},
		"kill -9 $$": {Code: 137, Signal: syscall.SIGKILL, Known: true},
	} {
		cmd := exec.Command("sh", "-c", script)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		p, err := Open(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Wait(); err != nil || got != want {
			t.Errorf("%s: %+v, %v", script, got, err)
		}
		if err := p.Signal(syscall.SIGTERM); err != syscall.ESRCH {
			t.Errorf("signal to an ended process: %v", err)
		}
		p.Close()
		cmd.Process.Release()
	}
}

func TestWaitForForeignProcess(t *testing.T) {
	// The shell's child is not ours; the shell lives until it has ended.
	cmd := exec.Command("sh", "-c", "sh -c 'echo $$; read x; exit 6' <&3 & exec 3<&-; wait; read y")
	in, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{in}
	hold, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	pid := 0
	buf := make([]byte, 16)
	n, err := out.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range buf[:n] {
		if c >= '0' && c <= '9' {
			pid = pid*10 + int(c-'0')
		}
	}
	p, err := Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	inW.Close()
	status, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	// A kernel that does not tell must be taken for one that does not know.
	if status.Known && status.Code != 6 {
		t.Errorf("status %+v", status)
	}
	t.Logf("status %+v", status)
	hold.Close()
	if err := cmd.Wait(); err != nil {
		t.Logf("shell: %v", err)
	}
}

func FuzzParseStat(f *testing.F) {
	self, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(self)
	f.Add([]byte("1 (a) b) c) S 1 2 3"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseStat(data)
		if err == nil && s.State == 0 {
			t.Errorf("no state of %q", data)
		}
	})
}
