package filetree

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// names lists what is in a stream.
func names(t *testing.T, stream []byte) []string {
	t.Helper()
	var out []string
	in := tar.NewReader(bytes.NewReader(stream))
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, h.Name)
	}
}

func TestTreesComeOutAsTheyWentIn(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write(t, filepath.Join(from, "srv/app/deep/file"), "text")
	for _, err := range []error{
		os.Link(filepath.Join(from, "srv/app/deep/file"), filepath.Join(from, "srv/app/same")),
		os.Symlink("/srv/app/deep", filepath.Join(from, "srv/app/link")),
		unix.Mkfifo(filepath.Join(from, "srv/app/pipe"), 0o600),
		os.Chmod(filepath.Join(from, "srv/app/deep/file"), 0o4755|fs.ModeSetuid),
		os.Chtimes(filepath.Join(from, "srv/app/deep"), time.Time{}, time.Unix(1e9, 0)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var stream bytes.Buffer
	if err := Read(t.Context(), &stream, open(t, from), "/srv/app", ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	got := names(t, stream.Bytes())
	slices.Sort(got)
	if fmt.Sprint(got) != "[app/ app/deep/ app/deep/file app/link app/pipe app/same]" {
		t.Errorf("stream has %v", got)
	}
	if err := Write(t.Context(), &stream, open(t, to), "/", WriteOptions{Rename: "copy"}); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(to, "copy/deep/file")); err != nil || string(text) != "text" {
		t.Errorf("%q %v", text, err)
	}
	a, errA := os.Stat(filepath.Join(to, "copy/deep/file"))
	b, errB := os.Stat(filepath.Join(to, "copy/same"))
	if errA != nil || errB != nil || !os.SameFile(a, b) || a.Mode() != 0o755|fs.ModeSetuid {
		t.Errorf("%v %v %v %v", a, errA, b, errB)
	}
	if dir, err := os.Stat(filepath.Join(to, "copy/deep")); err != nil || dir.ModTime().Unix() != 1e9 {
		t.Errorf("%v %v", dir, err)
	}
	if target, err := os.Readlink(filepath.Join(to, "copy/link")); target != "/srv/app/deep" {
		t.Errorf("%q %v", target, err)
	}
}

func TestNamesInTheStream(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a/b/f"), "x")
	if err := os.Symlink("/a/b", filepath.Join(dir, "l")); err != nil {
		t.Fatal(err)
	}
	root := open(t, dir)
	for _, test := range []struct {
		name    string
		options ReadOptions
		want    string
	}{
		{"/a/b", ReadOptions{}, "[b/ b/f]"},
		{"/a/b/.", ReadOptions{Name: "."}, "[f]"},
		{"/a/b/f", ReadOptions{Name: "g"}, "[g]"},
		{"/l", ReadOptions{}, "[l]"},
		{"/l", ReadOptions{Follow: true}, "[l/ l/f]"},
		{"/l/", ReadOptions{}, "[l/ l/f]"},
		{"../../a/b/f", ReadOptions{}, "[f]"},
	} {
		var stream bytes.Buffer
		if err := Read(t.Context(), &stream, root, test.name, test.options); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if got := fmt.Sprint(names(t, stream.Bytes())); got != test.want {
			t.Errorf("%s %v: got %s, want %s", test.name, test.options, got, test.want)
		}
	}
	info, err := Stat(root, "/l", false)
	if err != nil || info.Mode&fs.ModeSymlink == 0 || info.Target != "/a/b" || info.Name != "l" {
		t.Errorf("%v %v", info, err)
	}
	if info, err = Stat(root, "/l", true); err != nil || !info.Mode.IsDir() {
		t.Errorf("%v %v", info, err)
	}
	if _, err := Stat(root, "/nothing", true); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// stream makes a tar of entries.
func stream(t *testing.T, entries ...*tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Typeflag == tar.TypeReg {
			h.Size = 4
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, "evil"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// TestWriteStaysInside: whatever names and links a stream has, and whatever
// links the tree has, nothing outside is touched.
func TestWriteStaysInside(t *testing.T) {
	outside := t.TempDir()
	write(t, filepath.Join(outside, "victim"), "good")
	up := strings.Repeat("../", 30)
	for name, entries := range map[string][]*tar.Header{
		"name":      {{Typeflag: tar.TypeReg, Name: up + outside + "/victim"}},
		"absolute":  {{Typeflag: tar.TypeReg, Name: outside + "/victim"}},
		"link":      {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: outside}, {Typeflag: tar.TypeReg, Name: "l/victim"}},
		"up":        {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: up + outside}, {Typeflag: tar.TypeReg, Name: "l/victim"}},
		"magic":     {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "/proc/self/root" + outside}, {Typeflag: tar.TypeReg, Name: "l/victim"}},
		"hard link": {{Typeflag: tar.TypeLink, Name: "h", Linkname: up + outside + "/victim"}, {Typeflag: tar.TypeReg, Name: "h"}},
		"over link": {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: outside + "/victim"}, {Typeflag: tar.TypeReg, Name: "l"}},
		"in tree":   {{Typeflag: tar.TypeReg, Name: "there/victim"}, {Typeflag: tar.TypeDir, Name: "there/new"}},
		"device":    {{Typeflag: tar.TypeBlock, Name: "b", Devmajor: 8}, {Typeflag: tar.TypeChar, Name: "c", Devmajor: 1, Devminor: 1}},
	} {
		dir := t.TempDir()
		if err := os.Symlink(outside, filepath.Join(dir, "there")); err != nil {
			t.Fatal(err)
		}
		_ = Write(t.Context(), stream(t, entries...), open(t, dir), "/", WriteOptions{})
		if text, err := os.ReadFile(filepath.Join(outside, "victim")); err != nil || string(text) != "good" {
			t.Errorf("%s: the file outside says %q %v", name, text, err)
		}
		if found, _ := os.ReadDir(outside); len(found) != 1 {
			t.Errorf("%s: outside there is %v", name, found)
		}
		for _, device := range []string{"b", "c"} {
			if _, err := os.Lstat(filepath.Join(dir, device)); err == nil {
				t.Errorf("%s: a device was made", name)
			}
		}
	}
}

// TestCVE_2026_41568 (with CVE-2026-42306 and CVE-2018-15664, which are alike) races a container
// that swaps a folder for a link out of its root while files are copied into
// it and out of it.
func TestCVE_2026_41568(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	write(t, filepath.Join(outside, "secret"), "good")
	write(t, filepath.Join(dir, "real/secret"), "mine")
	root := open(t, dir)
	if err := os.Symlink(outside, filepath.Join(dir, "bad")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "real"), filepath.Join(dir, "d")); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, "d"), unix.AT_FDCWD, filepath.Join(dir, "bad"), unix.RENAME_EXCHANGE)
			}
		}
	}()
	deadline := time.Now().Add(700 * time.Millisecond)
	copies := 0
	for ; time.Now().Before(deadline); copies++ {
		var out bytes.Buffer
		_ = Read(t.Context(), &out, root, "/d/secret", ReadOptions{})
		if strings.Contains(out.String(), "good") {
			t.Error("a file outside was read")
			break
		}
		_ = Write(t.Context(), stream(t, &tar.Header{Typeflag: tar.TypeReg, Name: "made"}), root, "/d", WriteOptions{})
	}
	close(stop)
	<-stopped
	if copies < 10 {
		t.Errorf("only %d copies were made", copies)
	}
	if found, err := os.ReadDir(outside); err != nil || len(found) != 1 {
		t.Errorf("outside there is %v %v", found, err)
	}
}

func TestKindsAreKept(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "folder/f"), "x")
	write(t, filepath.Join(dir, "file"), "x")
	root := open(t, dir)
	for words, h := range map[string]*tar.Header{
		`cannot overwrite directory "folder" with non-directory`: {Typeflag: tar.TypeReg, Name: "folder"},
		`cannot overwrite non-directory "file" with directory`:   {Typeflag: tar.TypeDir, Name: "file"},
	} {
		if err := Write(t.Context(), stream(t, h), root, "/", WriteOptions{}); !errors.Is(err, ErrKind) || !strings.Contains(err.Error(), words) {
			t.Errorf("got %v, want %s", err, words)
		}
	}
	if err := Write(t.Context(), stream(t), root, "/nowhere", WriteOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := Write(t.Context(), strings.NewReader("no tar at all, but long enough to be looked at as if it were one"), root, "/", WriteOptions{}); err == nil {
		t.Error("nonsense was taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Read(ctx, io.Discard, root, "/", ReadOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func FuzzWrite(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "a/b", Linkname: "../../c"})
	_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "a/b/c", Size: 0})
	_ = w.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "in")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		_ = Write(t.Context(), bytes.NewReader(data), open(t, dir), "/", WriteOptions{})
		if found, err := os.ReadDir(parent); err != nil || len(found) != 1 {
			t.Errorf("outside there is %v %v", found, err)
		}
	})
}
