package atomicfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriteReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, write := range []func(string, []byte, os.FileMode) error{Write, WriteSync} {
		for _, content := range []string{"one", "two"} {
			if err := write(path, []byte(content), 0o666); err != nil {
				t.Fatal(err)
			}
			got, err := Read(path, 10)
			if err != nil || string(got) != content {
				t.Errorf("read %q, %v; want %q", got, err, content)
			}
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestWriteFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "d")
	if err := os.MkdirAll(filepath.Join(target, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(target, nil, 0o600); err == nil || !strings.Contains(err.Error(), target) {
		t.Errorf("error %v", err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestReadIsBounded(t *testing.T) {
	if _, err := Read("/dev/zero", 100); err == nil {
		t.Error("no error")
	}
}

func TestIsTemp(t *testing.T) {
	for name, want := range map[string]bool{"a.json": false, "/x/.a.json.tmp-0011": true, ".hidden": false} {
		if IsTemp(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
