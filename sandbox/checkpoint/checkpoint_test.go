package checkpoint

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// item is an entry of an archive made for a test.
type item struct {
	name, body, link string
	kind             byte
	// size, when not zero, is claimed in place of the body's.
	size int64
}

const (
	goodConfig = `{"id":"1","name":"web","rootfsImageRef":"sha256:1"}`
	goodSpec   = `{"process":{"args":["sh"],"cwd":"/"}}`
)

// good are the entries of an archive that is right.
func good(more ...item) []item {
	return append([]item{
		{name: ConfigName, body: goodConfig}, {name: SpecName, body: goodSpec},
		{name: "checkpoint/", kind: tar.TypeDir}, {name: "checkpoint/pstree.img", body: "x"},
	}, more...)
}

func pack(t testing.TB, items []item) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, i := range items {
		h := &tar.Header{Name: i.name, Typeflag: i.kind, Linkname: i.link, Mode: 0o7777, Size: int64(len(i.body))}
		if i.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if i.size != 0 {
			h.Size = i.size
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, i.body); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Flush() // a size that was claimed may be missing
	buf.Write(make([]byte, 1024))
	return buf.Bytes()
}

// within fails the test unless dir holds nothing but what an archive may.
func within(t testing.TB, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch {
		case rel == "." || rel == ImagesName:
		case rel == RootfsName || filepath.Dir(rel) == ImagesName:
			if info.Mode() != 0o600 {
				t.Errorf("%s has mode %v", rel, info.Mode())
			}
		default:
			t.Errorf("there is %s", rel)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestWriteRead(t *testing.T) {
	images, rootfs := t.TempDir(), filepath.Join(t.TempDir(), "layer")
	for name, text := range map[string]string{"pstree.img": "a", "descriptors.json": "[]", "dump.log": "b", "stats-dump": "c"} {
		if err := os.WriteFile(filepath.Join(images, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(rootfs, []byte("layer"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := Config{ID: "1", Name: "web", ImageID: "sha256:1", CheckpointedAt: time.Unix(5, 6).UTC()}
	process := &specs.Process{Args: []string{"sh", "-c", "x"}, Cwd: "/", Env: []string{"A=b"}}
	var buf bytes.Buffer
	content := Content{Config: config, Spec: &specs.Spec{Process: process}, Images: images, Rootfs: rootfs}
	if err := Write(t.Context(), &buf, content); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	got, err := Read(t.Context(), &buf, dir, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Config != config || !got.Rootfs || got.Spec.Process.Args[2] != "x" {
		t.Errorf("got %+v", got)
	}
	within(t, dir)
	for _, name := range []string{"checkpoint/pstree.img", "checkpoint/stats-dump", "rootfs-diff.tar"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Write(cancelled, io.Discard, content); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := Read(cancelled, &buf, t.TempDir(), Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("reading after the end: %v", err)
	}
}

func TestHostileArchives(t *testing.T) {
	dev := item{name: "checkpoint/x.img", kind: tar.TypeBlock}
	for _, test := range []struct {
		name  string
		items []item
		want  func(error) bool
	}{
		{"nothing", nil, errdefs.IsInvalidArgument},
		{"no images", good()[:3], errdefs.IsInvalidArgument},
		{"no configuration", good()[1:], errdefs.IsInvalidArgument},
		{"no process", append(good()[2:], item{name: ConfigName, body: "{}"}, item{name: SpecName, body: "{}"}), errdefs.IsInvalidArgument},
		{"null specification", append(good()[2:], item{name: ConfigName, body: "null"}, item{name: SpecName, body: "null"}), errdefs.IsInvalidArgument},
		{"no JSON", append(good()[1:], item{name: ConfigName, body: "{"}), errdefs.IsInvalidArgument},
		{"climbing", good(item{name: "../x"}), errdefs.IsInvalidArgument},
		{"climbing image", good(item{name: "checkpoint/../../x.img"}), errdefs.IsInvalidArgument},
		{"dots", good(item{name: "checkpoint/.."}), errdefs.IsInvalidArgument},
		{"absolute", good(item{name: "/etc/passwd"}), errdefs.IsInvalidArgument},
		{"folder in images", good(item{name: "checkpoint/a/b.img"}), errdefs.IsInvalidArgument},
		{"other folder", good(item{name: "a/", kind: tar.TypeDir}), errdefs.IsInvalidArgument},
		{"unknown", good(item{name: "nodeagent.json"}), errdefs.IsInvalidArgument},
		{"another spelling", good(item{name: "./config.dump", body: "{}"}), errdefs.IsInvalidArgument},
		{"twice", good(item{name: ConfigName, body: "{}"}), errdefs.IsInvalidArgument},
		{"image twice", good(item{name: "checkpoint/pstree.img"}), errdefs.IsInvalidArgument},
		{"device", good(dev), errdefs.IsInvalidArgument},
		{"FIFO", good(item{name: "checkpoint/x.img", kind: tar.TypeFifo}), errdefs.IsInvalidArgument},
		{"hard link", good(item{name: "checkpoint/x.img", kind: tar.TypeLink, link: "/etc/shadow"}), errdefs.IsInvalidArgument},
		{"cut off", good(item{name: "checkpoint/x.img", size: 1 << 40}), errdefs.IsInvalidArgument},
		{"huge configuration", append(good()[1:], item{name: ConfigName, size: jsonLimit + 1}), errdefs.IsResourceExhausted},
		{"many", good(item{name: "checkpoint/a.img"}, item{name: "checkpoint/b.img"}, item{name: "checkpoint/c.img"}, item{name: "checkpoint/d.img"}), errdefs.IsResourceExhausted},
		{"large", good(item{name: "checkpoint/a.img", body: strings.Repeat("x", 64<<10)}), errdefs.IsResourceExhausted},
	} {
		dir := t.TempDir()
		_, err := Read(t.Context(), bytes.NewReader(pack(t, test.items)), dir, Limits{Bytes: 32 << 10, Entries: 7})
		if err == nil || !test.want(err) {
			t.Errorf("%s: got %v", test.name, err)
		}
		within(t, dir)
	}
}

// CVE-2024-8676: cri-o mounted what the archive's specification said. Here an
// archive has no say: its specification ends where it was compared.
func TestCVE2024_8676(t *testing.T) {
	spec := specs.Spec{
		Process: &specs.Process{Args: []string{"sh"}, Cwd: "/"},
		Mounts:  []specs.Mount{{Destination: "/host", Source: "/", Type: "bind", Options: []string{"bind"}}},
	}
	body, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	items := good()
	items[1].body = string(body)
	got, err := Read(t.Context(), bytes.NewReader(pack(t, items)), t.TempDir(), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	want := Expected{Name: "web", ImageID: "sha256:1", Process: &specs.Process{Args: []string{"sh"}, Cwd: "/"}}
	if err := got.Compare(want); err != nil {
		t.Error(err)
	}
	if len(want.Process.Env) > 0 || len(want.Process.Args) != 1 {
		t.Error("comparing changed what is expected")
	}
}

// CVE-2026-53492: containerd took mounts and CDI devices from an archive's
// annotations and status. Those files are read over, and others refused.
func TestCVE2026_53492(t *testing.T) {
	items := good(item{name: "status.dump", body: `{"annotations":{"cdi.k8s.io/x":"vendor.com/gpu=all"}}`})
	dir := t.TempDir()
	if _, err := Read(t.Context(), bytes.NewReader(pack(t, items)), dir, Limits{}); err != nil {
		t.Error(err)
	}
	within(t, dir)
}

// CVE-2026-53489: a container.log that is a symbolic link was followed on the
// host.
func TestCVE2026_53489(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	for _, name := range []string{"container.log", "checkpoint/dump.log", RootfsName, ImagesName} {
		items := good(item{name: name, kind: tar.TypeSymlink, link: victim}, item{name: name, body: "x"})
		dir := t.TempDir()
		if _, err := Read(t.Context(), bytes.NewReader(pack(t, items)), dir, Limits{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: got %v", name, err)
		}
		within(t, dir)
	}
	if _, err := os.Lstat(victim); err == nil {
		t.Error("the link was followed")
	}
}

// CVE-2026-50195: the image's name of the archive was written as a tag, so
// that other pods ran what it pointed to. An archive of another image is
// refused by its ID, and its name is used for nothing.
func TestCVE2026_50195(t *testing.T) {
	items := good()
	items[0].body = `{"name":"web","rootfsImageName":"registry.k8s.io/pause:3.10","rootfsImageRef":"sha256:evil"}`
	got, err := Read(t.Context(), bytes.NewReader(pack(t, items)), t.TempDir(), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	want := Expected{Name: "web", ImageID: "sha256:1", Process: &specs.Process{Args: []string{"sh"}, Cwd: "/"}}
	if err := got.Compare(want); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "image") {
		t.Errorf("got %v", err)
	}
}

// A file that is all holes takes a kilobyte in an archive, and the whole disk when it is written out.
func TestHolesAreRefused(t *testing.T) {
	record := func(key, value string) string {
		// The length counts itself.
		text := " " + key + "=" + value + "\n"
		n := len(text) + 2
		if len(strconv.Itoa(n)) == 3 {
			n++
		}
		return strconv.Itoa(n) + text
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range []struct {
		header tar.Header
		body   string
	}{
		{tar.Header{Typeflag: tar.TypeXHeader, Name: "PaxHeaders/x"}, record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") +
			record("GNU.sparse.name", "checkpoint/pages-1.img") + record("GNU.sparse.realsize", "1099511627776")},
		{tar.Header{Typeflag: tar.TypeReg, Name: "GNUSparseFile/x", Mode: 0o600}, "0\n" + strings.Repeat("\x00", 510)},
	} {
		var one bytes.Buffer
		each := tar.NewWriter(&one)
		plain := h.header
		plain.Typeflag, plain.Size, plain.Mode = tar.TypeReg, int64(len(h.body)), 0o600
		if err := each.WriteHeader(&plain); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(each, h.body); err != nil {
			t.Fatal(err)
		}
		if err := each.Flush(); err != nil {
			t.Fatal(err)
		}
		block := one.Bytes()
		block[156] = h.header.Typeflag
		sum := 0
		for i, b := range block[:512] {
			if i >= 148 && i < 156 {
				b = ' '
			}
			sum += int(b)
		}
		copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
		buf.Write(block)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := Read(t.Context(), &buf, dir, Limits{Bytes: 1 << 20}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "holes") {
		t.Errorf("%v", err)
	}
}

func TestCompare(t *testing.T) {
	process := func(change func(*specs.Process)) *specs.Process {
		p := &specs.Process{Args: []string{"sh"}, Cwd: "/", User: specs.User{UID: 1, GID: 2}}
		change(p)
		return p
	}
	have := &Archive{Config: Config{Name: "web", ImageID: "sha256:1"}, Spec: &specs.Spec{Process: process(func(*specs.Process) {})}}
	for field, change := range map[string]func(*specs.Process){
		"command":           func(p *specs.Process) { p.Args = []string{"sh", "-c"} },
		"environment":       func(p *specs.Process) { p.Env = []string{"A=b"} },
		"working directory": func(p *specs.Process) { p.Cwd = "/tmp" },
		"user":              func(p *specs.Process) { p.User.UID = 0 },
		"group":             func(p *specs.Process) { p.User.GID = 0 },
		"terminal":          func(p *specs.Process) { p.Terminal = true },
	} {
		err := have.Compare(Expected{Name: "web", ImageID: "sha256:1", Process: process(change)})
		if !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s: got %v", field, err)
		}
	}
	if err := have.Compare(Expected{Name: "db", ImageID: "sha256:1", Process: have.Spec.Process}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("name: got %v", err)
	}
}

// FuzzRead: whatever the bytes, nothing but the files of an archive is kept,
// each once.
func FuzzRead(f *testing.F) {
	f.Add(pack(f, good()))
	f.Add(pack(f, good(item{name: RootfsName, body: "layer"}, item{name: "deleted.files", body: "[]"})))
	f.Add(pack(f, good(item{name: "../x", body: "x"})))
	f.Add(pack(f, good(item{name: "checkpoint/x.img", kind: tar.TypeSymlink, link: "/etc"})))
	f.Fuzz(func(t *testing.T, data []byte) {
		kept := map[string]bool{}
		got, err := read(bytes.NewReader(data), Limits{Bytes: 1 << 20, Entries: 64}, func(name string, in io.Reader) error {
			if kept[name] || !fs.ValidPath(name) || name != RootfsName && path.Dir(name) != ImagesName {
				t.Errorf("%q is kept", name)
			}
			kept[name] = true
			n, err := io.Copy(io.Discard, in)
			if n > 1<<20 {
				t.Errorf("%q has %d bytes", name, n)
			}
			return err
		})
		if err == nil && (got.Spec == nil || got.Spec.Process == nil) {
			t.Error("an archive without a process was taken")
		}
	})
}
