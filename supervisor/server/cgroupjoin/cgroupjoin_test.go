package cgroupjoin

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A process that is told so writes itself to each file, and sees the level alone.
func TestJoin(t *testing.T) {
	if os.Getenv("_LIBCONTAINER_LOGLEVEL") != "" {
		return
	}
	dir := t.TempDir()
	files := []string{filepath.Join(dir, "a;b"), filepath.Join(dir, "c\"d")}
	for _, f := range files {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "program")
	build := exec.Command("go", "build", "-o", program, "./testdata/program")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	run := func(arg string, files ...string) (string, error) {
		cmd := exec.Command(program, arg)
		cmd.Env = []string{"A=1", "_LIBCONTAINER_LOGPIPE=1", "_LIBCONTAINER_LOGLEVEL=" + LogLevel("5", files), "B=2"}
		out, err := cmd.Output()
		return string(out), err
	}
	if out, err := run("init", files...); err != nil || out != "5" {
		t.Errorf("%q, %v", out, err)
	}
	for _, f := range files {
		if data, err := os.ReadFile(f); err != nil || string(data) != "0" {
			t.Errorf("%s: %q, %v", f, data, err)
		}
	}
	if out, err := run("init", filepath.Join(dir, "none")); err == nil || out != `{"level":"fatal","msg":"join the container's cgroups: No such file or directory"}`+"\n" {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := run("other", files[0]); err != nil || out != LogLevel("5", files[:1]) {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := run("init"); err != nil || out != "5" {
		t.Errorf("%q, %v", out, err)
	}
}
