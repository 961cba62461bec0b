package logfile

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// FuzzStream checks that the records put together give what was fed, however
// it is cut into pieces.
func FuzzStream(f *testing.F) {
	f.Add([]byte("one\ntwo\n\nlast"), 3, 5)
	f.Add([]byte("\n\n"), 1, 1)
	f.Add([]byte(strings.Repeat("x", 50)+"\r\n"), 7, 10)
	f.Fuzz(func(t *testing.T, data []byte, piece, maxLine int) {
		if piece < 1 || piece > 1<<16 || maxLine < 1 || maxLine > 1<<16 || len(data) > 1<<16 {
			t.Skip()
		}
		path := filepath.Join(t.TempDir(), "dir", "log")
		w, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		s := NewStream(w, "stdout", maxLine)
		for rest := data; len(rest) > 0; {
			n := min(piece, len(rest))
			s.Feed(rest[:n], time.Now())
			rest = rest[n:]
		}
		s.Flush(time.Now())
		log, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := parse(t, log, maxLine); !bytes.Equal(got, data) {
			t.Errorf("log gives %q for %q", got, data)
		}
	})
}

// parse undoes the framing.
func parse(t *testing.T, log []byte, maxLine int) []byte {
	t.Helper()
	var out []byte
	for len(log) > 0 {
		line, rest, ok := bytes.Cut(log, []byte("\n"))
		parts := bytes.SplitN(line, []byte(" "), 4)
		if !ok || len(parts) != 4 || len(parts[3]) > maxLine {
			t.Fatalf("malformed record %q", line)
		}
		out = append(out, parts[3]...)
		if string(parts[2]) == "F" {
			out = append(out, '\n')
		}
		log = rest
	}
	return out
}

func TestOpenRefusesSymlink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(dir, "log")); err == nil {
		t.Error("a symbolic link is opened")
	}
	if w, err := Open(""); w != nil || err != nil {
		t.Errorf("no path: %v, %v", w, err)
	}
}

func TestReopenFailureKeepsFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	path := filepath.Join(dir, "log")
	w, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := w.Reopen(); err == nil {
		t.Error("a missing directory is no error")
	}
	w.Write([]byte("still\n"))
	if got, err := os.ReadFile(filepath.Join(dir+".old", "log")); err != nil || string(got) != "still\n" {
		t.Errorf("log is %q, %v", got, err)
	}
}

// Whoever was killed within a record leaves its beginning, which the next record must not become a part of.
func TestResume(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for before, want := range map[string]string{"": "next\n", "whole\n": "whole\nnext\n", "torn": "torn\nnext\n"} {
		if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := Resume(path)
		if err != nil {
			t.Fatal(err)
		}
		w.Write([]byte("next\n"))
		w.Close()
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("after %q the log is %q, %v", before, got, err)
		}
	}
}

// A log that cannot be opened yet is no reason not to take the output.
func TestResumeWithoutFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	w, err := Resume(path)
	if w == nil || err == nil {
		t.Fatalf("a folder is opened: %v, %v", w, err)
	}
	defer w.Close()
	w.Write([]byte("lost\n"))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := w.Reopen(); err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("kept\n"))
	if got, err := os.ReadFile(path); err != nil || string(got) != "kept\n" {
		t.Errorf("the log is %q, %v", got, err)
	}
}
