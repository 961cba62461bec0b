package unpack

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

func TestWhiteouts(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	base := []tar.Header{
		dirEntry("d/", 0o750), fileEntry("d/a", "1"), fileEntry("d/b", "1"), dirEntry("d/e", 0o755), fileEntry("d/e/f", "1"),
		fileEntry("top", "1"),
	}
	for name, c := range map[string]struct {
		upper []tar.Header
		want  []string
	}{
		"file":      {[]tar.Header{whiteoutOf("d/a"), whiteoutOf("top")}, []string{"d/ 750", "d/b = 1", "d/e/ 755", "d/e/f = 1"}},
		"directory": {[]tar.Header{whiteoutOf("d")}, []string{"top = 1"}},
		"opaque":    {[]tar.Header{dirEntry("d/", 0o700), opaqueOf("d"), fileEntry("d/new", "2")}, []string{"d/ 700", "d/new = 2", "top = 1"}},
		"opaque after its files": {[]tar.Header{dirEntry("d/", 0o700), fileEntry("d/new", "2"), opaqueOf("d")},
			[]string{"d/ 700", "d/new = 2", "top = 1"}},
		"opaque root": {[]tar.Header{fileEntry("new", "2"), dirEntry("d", 0o711), opaqueOf(".")}, []string{"d/ 711", "new = 2"}},
		"directory made again": {[]tar.Header{whiteoutOf("d"), dirEntry("d", 0o711), fileEntry("d/n", "2")},
			[]string{"d/ 711", "d/n = 2", "top = 1"}},
		"directory made again, told after": {[]tar.Header{dirEntry("d", 0o711), fileEntry("d/n", "2"), whiteoutOf("d")},
			[]string{"d/ 711", "d/n = 2", "top = 1"}},
		"file made again": {[]tar.Header{whiteoutOf("d/a"), fileEntry("d/a", "2")},
			[]string{"d/ 750", "d/a = 2", "d/b = 1", "d/e/ 755", "d/e/f = 1", "top = 1"}},
		"file made again, told after": {[]tar.Header{fileEntry("d/a", "2"), whiteoutOf("d/a")},
			[]string{"d/ 750", "d/a = 2", "d/b = 1", "d/e/ 755", "d/e/f = 1", "top = 1"}},
		"made again without an entry": {[]tar.Header{whiteoutOf("d"), fileEntry("d/n", "2")}, []string{"d/ 755", "d/n = 2", "top = 1"}},
		"directory becomes a file":    {[]tar.Header{fileEntry("d", "2")}, []string{"d = 2", "top = 1"}},
		"file becomes a directory": {[]tar.Header{dirEntry("top", 0o755), fileEntry("top/n", "2")},
			[]string{"d/ 750", "d/a = 1", "d/b = 1", "d/e/ 755", "d/e/f = 1", "top/ 755", "top/n = 2"}},
		"directory to file to directory": {[]tar.Header{fileEntry("d", "2"), dirEntry("d", 0o755)}, []string{"d/ 755", "top = 1"}},
		"device 0:0":                     {[]tar.Header{{Typeflag: tar.TypeChar, Name: "d"}}, []string{"top = 1"}},
		"inside what is hidden": {[]tar.Header{whiteoutOf("d/a"), dirEntry("d", 0o755), opaqueOf("d"), dirEntry("n", 0o755), whiteoutOf("n/x")},
			[]string{"d/ 755", "n/ 755", "top = 1"}},
		"of nothing, and AUFS' notes": {[]tar.Header{whiteoutOf("d/none"), fileEntry("d/.wh..wh.plnk", "")},
			[]string{"d/ 750", "d/a = 1", "d/b = 1", "d/e/ 755", "d/e/f = 1", "top = 1"}},
		"implicit parents keep their looks": {[]tar.Header{fileEntry("d/e/g", "2")},
			[]string{"d/ 750", "d/a = 1", "d/b = 1", "d/e/ 755", "d/e/f = 1", "d/e/g = 2", "top = 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			i := newImage(t)
			i.must(base...)
			i.must(c.upper...)
			i.want(c.want...)
		})
	}
}

func TestWhiteoutInLowestLayer(t *testing.T) {
	root(t)
	i := newImage(t)
	i.must(whiteoutOf("x"), fileEntry("a", "1"), opaqueOf("."))
	i.want("a = 1")
}

func TestDuplicates(t *testing.T) {
	root(t)
	i := newImage(t)
	i.must(
		fileEntry("f", "first"), fileEntry("f", "second"),
		dirEntry("d", 0o755), fileEntry("d/x", "1"), dirEntry("d", 0o700), fileEntry("d/y", "1"),
		dirEntry("gone", 0o755), fileEntry("gone/x", "1"), symlinkEntry("gone", "d"), fileEntry("gone/z", "through the link"),
	)
	i.want("d/ 700", "d/x = 1", "d/y = 1", "d/z = through the link", "f = second", "gone -> d")
}

// TestReplacedWithWhiteouts replaces a directory in which something was deleted.
func TestReplacedWithWhiteouts(t *testing.T) {
	root(t)
	i := newImage(t)
	i.must(dirEntry("d", 0o755), fileEntry("d/x", "1"), fileEntry("d/y", "1"))
	i.must(dirEntry("d", 0o755), whiteoutOf("d/x"), fileEntry("d", "2"))
	i.want("d = 2")
}

// TestLinkedDirectories is about layers made without entries for parents, on
// distributions where /lib is a symbolic link.
func TestLinkedDirectories(t *testing.T) {
	root(t)
	i := newImage(t)
	i.must(dirEntry("usr", 0o755), dirEntry("usr/lib", 0o751), symlinkEntry("lib", "usr/lib"), symlinkEntry("abs", "/usr/../lib"))
	i.must(fileEntry("lib/a", "1"), fileEntry("abs/b", "1"), fileEntry("abs/new/c", "1"))
	i.must(fileEntry("abs/d", "2"), linkEntry("hard", "lib/a"))
	i.want("abs -> /usr/../lib", "hard = 1", "lib -> usr/lib", "usr/ 755", "usr/lib/ 751",
		"usr/lib/a = 1", "usr/lib/b = 1", "usr/lib/d = 2", "usr/lib/new/ 755", "usr/lib/new/c = 1")
}

func TestHardLinks(t *testing.T) {
	root(t)
	i := newImage(t)
	lower := fileEntry("d/a", "1")
	lower.Mode, lower.Uid, lower.Gid = 0o4750, 7, 8
	lower.PAXRecords = map[string]string{"SCHILY.xattr.user.mark": "yes"}
	i.must(dirEntry("d", 0o750), lower, symlinkEntry("s", "d/a"), fileEntry("own", "1"), linkEntry("own2", "own"))
	i.must(linkEntry("e/b", "d/a"), linkEntry("e/s", "s"), linkEntry("e/own3", "own2"))
	i.want("d/ 750", "d/a = 1", "e/ 755", "e/b = 1", "e/own3 = 1", "e/s -> d/a", "own = 1", "own2 = 1", "s -> d/a")

	top := i.dirs[0]
	var a, b unix.Stat_t
	for path, st := range map[string]*unix.Stat_t{"d/a": &a, "e/b": &b} {
		if err := unix.Lstat(filepath.Join(top, path), st); err != nil {
			t.Fatal(err)
		}
	}
	if a.Ino != b.Ino || a.Nlink != 2 || a.Mode != unix.S_IFREG|0o4750 || a.Uid != 7 || a.Gid != 8 || a.Mtim.Sec != epoch.Unix() {
		t.Errorf("copied up: %+v; linked: %+v", a, b)
	}
	value := make([]byte, 10)
	if n, err := unix.Getxattr(filepath.Join(top, "e/b"), "user.mark", value); err != nil || string(value[:n]) != "yes" {
		t.Errorf("xattr %q, %v", value[:max(n, 0)], err)
	}
}

func TestMetadata(t *testing.T) {
	root(t)
	i := newImage(t)
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	f := tar.Header{Typeflag: tar.TypeReg, Name: "d/f", Mode: 0o6755, Uid: 1000, Gid: 70000, ModTime: epoch.Add(123456789), Format: tar.FormatPAX,
		PAXRecords: map[string]string{
			"SCHILY.xattr.security.capability":      capability,
			"SCHILY.xattr.user.x":                   "y",
			"SCHILY.xattr.trusted.overlay.redirect": "/etc",
			"SCHILY.xattr.trusted.overlay.opaque":   "y",
			"SCHILY.xattr.user.overlay.opaque":      "y",
			"SCHILY.xattr.security.selinux":         "x",
		}}
	i.must(
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o711},
		tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o2775, Gid: 5}, f,
		tar.Header{Typeflag: tar.TypeChar, Name: "d/null", Mode: 0o666, Devmajor: 1, Devminor: 3},
		tar.Header{Typeflag: tar.TypeFifo, Name: "d/fifo", Mode: 0o622},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "d/link", Linkname: "/nowhere", Uid: 9, Gid: 9},
	)
	dir := i.dirs[0]
	for name, want := range map[string]unix.Stat_t{
		"":       {Mode: unix.S_IFDIR | 0o711},
		"d":      {Mode: unix.S_IFDIR | 0o2775, Gid: 5},
		"d/f":    {Mode: unix.S_IFREG | 0o6755, Uid: 1000, Gid: 70000},
		"d/null": {Mode: unix.S_IFCHR | 0o666, Rdev: unix.Mkdev(1, 3)},
		"d/fifo": {Mode: unix.S_IFIFO | 0o622},
		"d/link": {Mode: unix.S_IFLNK | 0o777, Uid: 9, Gid: 9},
	} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Error(err)
			continue
		}
		if st.Mode != want.Mode || st.Uid != want.Uid || st.Gid != want.Gid || st.Rdev != want.Rdev || st.Mtim.Sec != epoch.Unix() {
			t.Errorf("%s is %o %d:%d device %d time %d", name, st.Mode, st.Uid, st.Gid, st.Rdev, st.Mtim.Sec)
		}
		if name == "d/f" && st.Mtim.Nsec != 123456789 {
			t.Errorf("%d ns", st.Mtim.Nsec)
		}
	}
	names := make([]byte, 1024)
	n, err := unix.Llistxattr(filepath.Join(dir, "d/f"), names)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00")
	slices.Sort(got)
	if !slices.Equal(got, []string{"security.capability", "user.x"}) {
		t.Errorf("xattrs %q", got)
	}
}

func TestCompressions(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	plain := pack(t, fileEntry("f", strings.Repeat("content ", 100_000)))
	var gz, zst bytes.Buffer
	zw := gzip.NewWriter(&gz)
	zw.Write(plain[:5000])
	zw.Close()
	zw.Reset(&gz) // a second member
	zw.Write(plain[5000:])
	zw.Close()
	sw, err := zstd.NewWriter(&zst)
	if err != nil {
		t.Fatal(err)
	}
	sw.Write(plain)
	sw.Close()
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}, zst.Bytes()...)
	for name, data := range map[string][]byte{"plain": plain, "gzip": gz.Bytes(), "zstd": zst.Bytes(), "zstd with a skippable frame": skippable} {
		t.Run(name, func(t *testing.T) {
			res, err := Apply(t.Context(), reader(data), Options{Dir: t.TempDir()})
			if err != nil || res.DiffID != digest.FromBytes(plain) {
				t.Errorf("%v, %v", res.DiffID, err)
			}
			for _, n := range []int{0, 3, len(data) / 2, len(data) - 1} {
				if res, err := Apply(t.Context(), reader(data[:n]), Options{Dir: t.TempDir()}); err == nil && res.DiffID == digest.FromBytes(plain) {
					t.Errorf("cut to %d bytes it is the same", n)
				}
			}
		})
	}
}

// TestDiffIDCoversPadding: bytes behind the archive count.
func TestDiffIDCoversPadding(t *testing.T) {
	root(t)
	data := append(pack(t, fileEntry("f", "x")), make([]byte, 10_000)...)
	res, err := Apply(t.Context(), reader(data), Options{Dir: t.TempDir()})
	if err != nil || res.DiffID != digest.FromBytes(data) {
		t.Errorf("%v, %v", res.DiffID, err)
	}
}

func TestSparse(t *testing.T) {
	root(t)
	// PAX format 1.0: the map comes first in the content.
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	content := "1\n4194304\n4\n"
	content += strings.Repeat("\x00", 512-len(content)) + "data"
	tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "GNUSparseFile/s", Mode: 0o644, Size: int64(len(content)), ModTime: epoch})
	tw.Write([]byte(content))
	tw.Close()
	raw := buf.Bytes()
	pax := "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n21 GNU.sparse.name=s\n31 GNU.sparse.realsize=4194308\n"
	var out bytes.Buffer
	pw := tar.NewWriter(&out)
	pw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "x", Size: int64(len(pax)), ModTime: epoch})
	pw.Write([]byte(pax))
	pw.Flush()
	head := out.Bytes()
	head[156] = tar.TypeXHeader
	checksum(head)
	dir := t.TempDir()
	if _, err := Apply(t.Context(), reader(append(head, raw...)), Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	if st := fi.Sys().(*syscall.Stat_t); st.Size != 4194308 || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes in %d blocks", st.Size, st.Blocks)
	}
}

// checksum makes a changed tar header right again.
func checksum(block []byte) {
	copy(block[148:156], "        ")
	sum := 0
	for _, b := range block[:512] {
		sum += int(b)
	}
	copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

// flat is an image as a plain reading of the specification has it: names and
// what list says of them.
type flat map[string]string

func (f flat) remove(name string) {
	for n := range f {
		if n == name || strings.HasPrefix(n, name+"/") {
			delete(f, n)
		}
	}
}

func (f flat) parents(name string) {
	for i, c := range name {
		if c != '/' {
			continue
		}
		if dir := name[:i]; !strings.HasSuffix(f[dir], "/") {
			f.remove(dir)
			f[dir] = "755/"
		}
	}
}

// apply adds a layer: deletions first, for they mean only what is below.
func (f flat) apply(entries []tar.Header) {
	for _, h := range entries {
		dir, base := split(h.Name)
		if base == opaqueName {
			for n := range f {
				if strings.HasPrefix(n, dir+"/") {
					delete(f, n)
				}
			}
		} else if strings.HasPrefix(base, whiteoutPrefix) {
			f.remove(strings.TrimPrefix(dir+"/"+strings.TrimPrefix(base, whiteoutPrefix), "/"))
		}
	}
	for _, h := range entries {
		_, base := split(h.Name)
		f.parents(h.Name)
		switch {
		case strings.HasPrefix(base, whiteoutPrefix):
		case h.Typeflag == tar.TypeDir:
			if !strings.HasSuffix(f[h.Name], "/") {
				f.remove(h.Name)
			}
			f[h.Name] = fmt.Sprintf("%o/", h.Mode)
		default:
			f.remove(h.Name)
			f[h.Name] = h.Linkname
		}
	}
}

func (f flat) lines() []string {
	var lines []string
	for n, v := range f {
		if mode, ok := strings.CutSuffix(v, "/"); ok {
			lines = append(lines, n+"/ "+mode)
		} else {
			lines = append(lines, n+" = "+v)
		}
	}
	return lines
}

// TestAgainstFlattener unpacks random images and compares what overlayfs
// shows with a plain reading of the specification.
func TestAgainstFlattener(t *testing.T) {
	root(t)
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			i, want := newImage(t), flat{}
			for range 2 + rnd.IntN(5) {
				entries := randomLayer(rnd, want)
				i.must(entries...)
				want.apply(entries)
			}
			i.want(want.lines()...)
		})
	}
}

// randomLayer makes a layer of few names, so that they meet often. Parents
// are directories, or get entries: what a file does as a parent is refused.
func randomLayer(rnd *rand.Rand, below flat) []tar.Header {
	var entries []tar.Header
	isDir := map[string]bool{}
	used := map[string]bool{}
	var addDir func(name string)
	addDir = func(name string) {
		if name == "" || isDir[name] {
			return
		}
		dir, _ := split(name)
		addDir(dir)
		isDir[name], used[name] = true, true
		if strings.HasSuffix(below[name], "/") && rnd.IntN(3) == 0 {
			return // by its name alone
		}
		entries = append(entries, dirEntry(name, 0o700+rnd.Int64N(0o100)))
	}
	for range rnd.IntN(12) {
		names := make([]string, 1+rnd.IntN(3))
		for j := range names {
			names[j] = string(rune('a' + rnd.IntN(3)))
		}
		name := strings.Join(names, "/")
		dir, _ := split(name)
		if blocked(used, isDir, name) {
			continue
		}
		addDir(dir)
		switch rnd.IntN(5) {
		case 0:
			addDir(name)
		case 1:
			if below[name] != "" {
				entries = append(entries, whiteoutOf(name))
			}
		case 2:
			if dir != "" && strings.HasSuffix(below[dir], "/") {
				entries = append(entries, opaqueOf(dir))
			}
		default:
			used[name] = true
			entries = append(entries, fileEntry(name, fmt.Sprint(rnd.IntN(1000))))
		}
	}
	return entries
}

// blocked tells whether a layer has a file where the name needs a directory,
// or has the name itself.
func blocked(used, isDir map[string]bool, name string) bool {
	for i, c := range name {
		if c == '/' && used[name[:i]] && !isDir[name[:i]] {
			return true
		}
	}
	return used[name]
}
