package volume

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"github.com/nodeagent/nodeagent/internal/testenv"
	"golang.org/x/sys/unix"
)

func newStore(t *testing.T) *Store {
	t.Helper()
	s, err := New(filepath.Join(t.TempDir(), "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestVolumesOutliveTheStore(t *testing.T) {
	s := newStore(t)
	labels := map[string]string{"a": "b"}
	if _, made, err := s.Create(Spec{Name: "data", Labels: labels}); err != nil || !made {
		t.Fatal(made, err)
	}
	anonymous, _, err := s.Create(Spec{})
	if err != nil || !anonymous.Anonymous || len(anonymous.Name) != 64 {
		t.Fatal(anonymous, err)
	}
	write(t, filepath.Join(s.Path("data"), "kept"), "x")
	// A killed agent leaves a volume half made, one half removed, and a copy.
	write(t, filepath.Join(s.root, stagePrefix+"1", dataName, "f"), "x")
	write(t, filepath.Join(s.root, "data", stagePrefix+"2", "f"), "x")
	again, err := New(s.root)
	if err != nil {
		t.Fatal(err)
	}
	list := again.List()
	if len(list) != 2 || list[0].Name != anonymous.Name && list[1].Name != anonymous.Name {
		t.Errorf("got %v", list)
	}
	v, err := again.Get("data")
	if err != nil || v.Labels["a"] != "b" || v.Anonymous {
		t.Errorf("got %v %v", v, err)
	}
	if _, err := os.Stat(filepath.Join(again.Path("data"), "kept")); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.root, stagePrefix+"*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	if left, _ := filepath.Glob(filepath.Join(s.root, "data", stagePrefix+"*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestHeldVolumesStay(t *testing.T) {
	s := newStore(t)
	_, _, release, err := s.Hold(Spec{Name: "data"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove("data", nil); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("got %v", err)
	}
	release()
	release()
	if err := s.Remove("data", nil); err != nil {
		t.Error(err)
	}
	if err := s.Remove("data", nil); !errdefs.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
	if entries, err := os.ReadDir(s.root); err != nil || len(entries) > 0 {
		t.Errorf("left %v %v", entries, err)
	}
}

// Those who want a new volume at once get one.
func TestOneVolumeForAll(t *testing.T) {
	s := newStore(t)
	var all sync.WaitGroup
	var news atomic.Int32
	for range 8 {
		all.Go(func() {
			_, made, release, err := s.Hold(Spec{Name: "data"})
			if err != nil {
				t.Error(err)
				return
			}
			if made {
				news.Add(1)
			}
			if err := s.Remove("data", nil); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("a held one: %v", err)
			}
			release()
		})
	}
	all.Wait()
	if n := news.Load(); n != 1 || len(s.held) != 0 {
		t.Errorf("%d are new, %d held", n, len(s.held))
	}
	if left, _ := filepath.Glob(filepath.Join(s.root, stagePrefix+"*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestWrongVolumesAreRefused(t *testing.T) {
	s := newStore(t)
	for _, spec := range []Spec{
		{Name: "../x"}, {Name: ".hidden"}, {Name: "a/b"}, {Name: strings.Repeat("x", 300)},
		{Name: "a", Options: map[string]string{"size": "1"}},
		{Name: "a", Options: map[string]string{"type": "fuse.sshfs", "device": "host:/x"}},
		{Name: "a", Options: map[string]string{"type": "ext4"}},
		{Name: "a", Options: map[string]string{"type": "none", "o": "bind", "device": "relative"}},
		{Name: "a", Options: map[string]string{"device": "/x"}},
	} {
		if _, _, err := s.Create(spec); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: got %v", spec, err)
		}
	}
	options := map[string]string{"type": "tmpfs"}
	if _, _, err := s.Create(Spec{Name: "a", Options: options}); err != nil {
		t.Fatal(err)
	}
	if _, made, err := s.Create(Spec{Name: "a"}); made || err != nil {
		t.Errorf("without options: %v %v", made, err)
	}
	options["type"] = "none"
	options["device"] = "/tmp"
	if _, _, err := s.Create(Spec{Name: "a", Options: options}); !errdefs.IsAlreadyExists(err) {
		t.Errorf("other options: %v", err)
	}
}

// image makes an image's files and opens them.
func image(t *testing.T) (string, *os.File) {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return dir, f
}

func TestPopulate(t *testing.T) {
	s := newStore(t)
	dir, root := image(t)
	write(t, filepath.Join(dir, "srv/data/deep/file"), "text")
	for _, do := range []error{
		os.Link(filepath.Join(dir, "srv/data/deep/file"), filepath.Join(dir, "srv/data/same")),
		os.Symlink("/etc/passwd", filepath.Join(dir, "srv/data/link")),
		unix.Mkfifo(filepath.Join(dir, "srv/data/pipe"), 0o640),
		os.Chmod(filepath.Join(dir, "srv/data"), 0o2750),
		unix.Chmod(filepath.Join(dir, "srv/data"), 0o2750),
	} {
		if do != nil {
			t.Fatal(do)
		}
	}
	v, _, err := s.Create(Spec{Name: "data"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Populate(t.Context(), PopulateRequest{Volume: v.Name, Root: root, Name: "/srv/data"}); err != nil {
		t.Fatal(err)
	}
	at := s.Path(v.Name)
	if text, err := os.ReadFile(filepath.Join(at, "deep/file")); err != nil || string(text) != "text" {
		t.Errorf("got %q %v", text, err)
	}
	a, _ := os.Stat(filepath.Join(at, "deep/file"))
	b, _ := os.Stat(filepath.Join(at, "same"))
	if !os.SameFile(a, b) {
		t.Error("a file with two names is two files")
	}
	if to, err := os.Readlink(filepath.Join(at, "link")); to != "/etc/passwd" {
		t.Errorf("link to %q %v", to, err)
	}
	if info, err := os.Stat(at); err != nil || info.Mode().Perm() != 0o750 || info.Mode()&os.ModeSetgid == 0 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	// What is there stays.
	write(t, filepath.Join(dir, "srv/data/later"), "x")
	if err := s.Populate(t.Context(), PopulateRequest{Volume: v.Name, Root: root, Name: "/srv/data"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(at, "later")); err == nil {
		t.Error("a volume with something in it was written to")
	}
	for _, name := range []string{"/nowhere", "/srv/data/same"} {
		fresh, _, _ := s.Create(Spec{})
		if err := s.Populate(t.Context(), PopulateRequest{Volume: fresh.Name, Root: root, Name: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if size, err := s.Size(t.Context(), v.Name); err != nil || size < 512 {
		t.Errorf("size %d %v", size, err)
	}
}

// A container that has the volume while it is filled puts a link out of it in the
// place of a folder: nothing outside is made or changed. The paths of what is
// copied from are no better.
func TestFillingStaysInside(t *testing.T) {
	s := newStore(t)
	dir, root := image(t)
	for _, name := range []string{"a", "b", "c"} {
		write(t, filepath.Join(dir, "srv/d", name), "x")
	}
	v, _, err := s.Create(Spec{Name: "data"})
	if err != nil {
		t.Fatal(err)
	}
	outside, at := t.TempDir(), s.Path(v.Name)
	swap := sync.OnceFunc(func() {
		if err := errors.Join(os.Rename(filepath.Join(at, "d"), filepath.Join(at, "moved")), os.Symlink(outside, filepath.Join(at, "d"))); err != nil {
			t.Error(err)
		}
	})
	err = s.Populate(t.Context(), PopulateRequest{Volume: v.Name, Root: root, Name: "/srv", Shared: func() bool { return true }, Owner: func(uint32, uint32) (int, int) {
		swap()
		return os.Getuid(), os.Getgid()
	}})
	if err != nil {
		t.Error(err)
	}
	if found, err := os.ReadDir(outside); err != nil || len(found) > 0 {
		t.Errorf("outside there is %v %v", found, err)
	}
	if found, err := os.ReadDir(filepath.Join(at, "moved")); err != nil || len(found) != 3 {
		t.Errorf("copied %v %v", found, err)
	}
}

// Who gets a volume while a copy for it is made keeps its folder.
func TestFillingOfWhatIsSharedMeanwhile(t *testing.T) {
	s := newStore(t)
	dir, root := image(t)
	write(t, filepath.Join(dir, "srv/d/a"), "x")
	v, _, err := s.Create(Spec{Name: "data"})
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(s.Path(v.Name))
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	shared := func() bool { asked++; return asked > 1 }
	if err := s.Populate(t.Context(), PopulateRequest{Volume: v.Name, Root: root, Name: "/srv", Shared: shared}); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(s.Path(v.Name))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the folder was replaced, %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(s.Path(v.Name), "d/a")); err != nil || string(text) != "x" {
		t.Errorf("got %q %v", text, err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.root, "data", stagePrefix+"*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// What is mounted of a volume is the folder that was looked for, not what is in its
// place later.
func TestSubfolderStaysInside(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	s := newStore(t)
	if _, _, err := s.Create(Spec{Name: "data"}); err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(s.Path("data"), "part")
	write(t, filepath.Join(part, "mine"), "x")
	dir, err := s.OpenSubfolder("data", "part")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	target := t.TempDir()
	if err := s.BindSubfolder("data", "part", target); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(target, "mine")); err != nil {
		t.Error(err)
	}
	if err := errors.Join(unmountAt(target), os.Rename(part, part+"2"), os.Symlink("/etc", part)); err != nil {
		t.Fatal(err)
	}
	if err := s.BindSubfolder("data", "part", target); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a link out of the volume: %v", err)
	}
	if names, err := dir.Readdirnames(-1); err != nil || len(names) != 1 || names[0] != "mine" {
		t.Errorf("what was opened has %v %v", names, err)
	}
}

// Those who want a volume mounted at once get one mount, and what is about to be
// used stays.
func TestOneMountForAll(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	s, err := New(filepath.Join(link, "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Create(Spec{Name: "tmp", Options: map[string]string{"type": "tmpfs"}}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := s.Mount(t.Context(), "tmp"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(s.Path("tmp"))); err != nil || len(mounts) != 1 {
		t.Errorf("%d mounts, %v", len(mounts), err)
	}
	release, err := s.Use(t.Context(), "tmp")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		if err := s.Unmount("tmp"); err != nil {
			t.Fatal(err)
		}
		if mounted, err := isMounted(s.Path("tmp")); err != nil || mounted != want {
			t.Errorf("mounted %v %v, want %v", mounted, err, want)
		}
		release()
	}
}

// TestCVE_2022_23648 copies no file of the host into a volume, whatever path
// an image says its volume is at.
func TestCVE_2022_23648(t *testing.T) {
	s := newStore(t)
	dir, root := image(t)
	secret := t.TempDir()
	write(t, filepath.Join(secret, "shadow"), "secret")
	up := strings.Repeat("../", 20)
	for name, target := range map[string]string{"absolute": secret, "relative": up + secret, "magic": "/proc/self/root" + secret} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{up + secret, "/" + up + secret, "absolute", "relative", "magic", "absolute/../" + secret, "/x/../../.." + secret} {
		v, _, err := s.Create(Spec{})
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Populate(t.Context(), PopulateRequest{Volume: v.Name, Root: root, Name: name})
		if entries, err := os.ReadDir(s.Path(v.Name)); err != nil || len(entries) > 0 {
			t.Errorf("%s: the volume has %v %v", name, entries, err)
		}
		if f, err := s.OpenSubfolder(v.Name, name); err == nil {
			f.Close()
			t.Errorf("%s: is a part of the volume", name)
		}
	}
}

func TestMounts(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	s := newStore(t)
	source := t.TempDir()
	write(t, filepath.Join(source, "f"), "x")
	for name, options := range map[string]map[string]string{
		"tmp":  {"type": "tmpfs", "o": "size=1m,uid=7"},
		"bind": {"type": "none", "device": source, "o": "bind,ro"},
	} {
		if _, _, err := s.Create(Spec{Name: name, Options: options}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := s.Mount(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.Path("tmp"), &st); err != nil || st.Type != unix.TMPFS_MAGIC || st.Blocks*uint64(st.Bsize) != 1<<20 {
		t.Errorf("tmpfs: %v %v", st, err)
	}
	if err := os.WriteFile(filepath.Join(s.Path("bind"), "g"), nil, 0o600); err == nil {
		t.Error("a read-only bind mount was written to")
	}
	// A removal takes the mount away, and not what is mounted.
	for _, name := range []string{"tmp", "bind"} {
		if err := s.Remove(name, nil); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(source, "f")); err != nil {
		t.Error(err)
	}
}

func TestLeftNames(t *testing.T) {
	root := t.TempDir()
	s, err := New(root)
	if err != nil {
		t.Fatal(err)
	}
	if done, err := s.Leave(nil); err != nil {
		t.Fatal(err)
	} else {
		done()
	}
	one, err := s.Leave([]string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Leave([]string{"c"}); err != nil {
		t.Fatal(err)
	}
	one()
	if err := os.WriteFile(filepath.Join(root, leavingName, "torn"), []byte("../../etc\n\x00\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = New(root); err != nil || len(s.List()) != 0 {
		t.Fatalf("%v %v", s.List(), err)
	}
	names, done, err := s.Left()
	if err != nil || len(names) != 1 || names[0] != "c" {
		t.Fatalf("left %q %v", names, err)
	}
	done()
	if names, _, err := s.Left(); err != nil || len(names) != 0 {
		t.Errorf("left %q %v", names, err)
	}
}
