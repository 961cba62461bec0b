package interrupt

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// variable makes the test a program that removes the file it names when a
// signal ends it.
const variable = "INTERRUPT_TEST_FILE"

func TestMain(m *testing.M) {
	if file := os.Getenv(variable); file != "" {
		stop := Undo(func() { _ = os.Remove(file) })
		stop()
		Undo(func() { _ = os.Remove(file) })
		fmt.Println("ready")
		time.AfterFunc(time.Minute, func() { os.Exit(1) })
		select {}
	}
	os.Exit(m.Run())
}

func TestUndo(t *testing.T) {
	for _, c := range []struct {
		name    string
		wrapper []string
		signal  unix.Signal
		code    int
	}{
		{"interrupted", nil, unix.SIGINT, 130},
		{"hung up", nil, unix.SIGHUP, 129},
		{"not hung up", []string{"nohup"}, unix.SIGHUP, 143},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "half")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			args := append(c.wrapper, os.Args[0])
			cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
			cmd.Env = append(os.Environ(), variable+"="+file)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
				t.Fatalf("%q: %v", line, err)
			}
			for _, s := range []unix.Signal{c.signal, unix.SIGTERM} {
				if err := cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
					t.Fatal(err)
				}
				if s == c.signal && c.wrapper == nil {
					break
				}
			}
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the file is there: %v", err)
			}
		})
	}
}
