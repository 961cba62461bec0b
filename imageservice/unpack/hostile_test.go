package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
)

// world is a folder with a canary beside the place a layer goes to.
type world struct {
	dir, layer, lower string
	before            string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{dir: t.TempDir()}
	w.layer, w.lower = filepath.Join(w.dir, "layers", "2", "fs"), filepath.Join(w.dir, "layers", "1", "fs")
	for _, dir := range []string{w.layer, w.lower, filepath.Join(w.dir, "canary", "sub")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"canary/file", "canary/sub/file", "layers/1/fs/lower", "layers/1/record"} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte("do not touch"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	w.before = w.hash(t)
	return w
}

// hash covers everything but the layer: names, modes, owners, times, links,
// content.
func (w *world) hash(t testing.TB) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == w.layer {
			return filepath.SkipDir
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		fmt.Fprintln(h, path, st.Mode, st.Uid, st.Gid, st.Nlink, st.Mtim, st.Size)
		if fi.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			h.Write(data)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(h.Sum(nil))
}

// check fails when anything outside the layer changed, or is linked into it.
func (w *world) check(t testing.TB) {
	t.Helper()
	if w.hash(t) != w.before {
		t.Error("something outside the layer was touched")
	}
	err := filepath.WalkDir(w.layer, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), "do not touch") && filepath.Base(path) != "copied" && filepath.Base(path) != "lower" {
			t.Errorf("%s has what is outside", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func (w *world) apply(data []byte, base bool, limits Limits) error {
	opts := Options{Dir: w.layer, Limits: limits}
	if !base {
		lower, err := OpenLower(w.lower)
		if err != nil {
			return err
		}
		defer lower.Close()
		opts.Lowers = func(context.Context) ([]*Lower, error) { return []*Lower{lower}, nil }
	}
	if asImages {
		return w.applyImage(data, opts)
	}
	_, err := Apply(context.Background(), reader(data), opts)
	return err
}

// applyImage makes an image in place of the layer.
func (w *world) applyImage(data []byte, opts Options) error {
	f, err := os.CreateTemp("", "image-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	_, _, err = ApplyImage(context.Background(), reader(data), ImageOptions{File: f, Lowers: opts.Lowers, Limits: opts.Limits})
	return err
}

// hostile are layers that try to get out. Some are refused, some contained:
// neither touches anything.
func hostile(w *world) map[string][]tar.Header {
	canary := filepath.Join(w.dir, "canary")
	up := strings.Repeat("../", 20)
	return map[string][]tar.Header{
		"dots":                     {fileEntry("../../../canary/file", "x")},
		"dots in the middle":       {fileEntry("a/../../../../canary/file", "x")},
		"many dots":                {fileEntry(up+canary+"/file", "x")},
		"absolute":                 {fileEntry(canary+"/file", "x")},
		"directory of dots":        {dirEntry("..", 0o777)},
		"absolute link as parent":  {symlinkEntry("d", canary), fileEntry("d/file", "x"), dirEntry("d/sub", 0o777), fileEntry("d/new", "x")},
		"relative link as parent":  {symlinkEntry("d", up+canary), fileEntry("d/file", "x")},
		"link to the root":         {symlinkEntry("d", "/"), fileEntry("d/canary/file", "x")},
		"link to a link":           {symlinkEntry("a", "b"), symlinkEntry("b", canary), fileEntry("a/file", "x")},
		"link in a link's path":    {dirEntry("x", 0o755), symlinkEntry("x/y", up), symlinkEntry("z", "x/y/"+canary), fileEntry("z/file", "x")},
		"loop":                     {symlinkEntry("a", "b"), symlinkEntry("b", "a"), fileEntry("a/file", "x")},
		"file through a link":      {symlinkEntry("f", canary+"/file"), fileEntry("f", "x")},
		"mode through a link":      {symlinkEntry("d", canary), dirEntry("d", 0o777)},
		"proc":                     {symlinkEntry("d", "/proc/self/root"+canary), fileEntry("d/file", "x")},
		"proc fd":                  {symlinkEntry("d", "/proc/self/cwd"), fileEntry("d/file", "x")},
		"hard link, dots":          {linkEntry("h", "../../../canary/file"), fileEntry("h", "x")},
		"hard link, absolute":      {linkEntry("h", canary+"/file"), fileEntry("h", "x")},
		"hard link by a link":      {symlinkEntry("d", canary), linkEntry("h", "d/file")},
		"hard link to a link":      {symlinkEntry("s", canary+"/file"), linkEntry("h", "s"), fileEntry("h", "x")},
		"hard link to the record":  {linkEntry("h", "../record")},
		"hard link to a directory": {dirEntry("d", 0o755), linkEntry("h", "d")},
		"hard link to itself":      {linkEntry("h", "h")},
		"hard link to the root":    {linkEntry("h", "/")},
		"copied up, then written":  {linkEntry("copied", "lower"), fileEntry("lower", "x"), fileEntry("copied", "y")},
		"written over a lower":     {fileEntry("lower", "x")},
		"deletion outside":         {symlinkEntry("d", canary), whiteoutOf("d/file")},
		"deletion of dots":         {fileEntry("a/.wh...", "")},
		"deletion of a dot":        {fileEntry("a/.wh..", "")},
		"deletion of nothing":      {fileEntry("a/.wh.", "")},
		"opaque outside":           {symlinkEntry("d", canary), opaqueOf("d")},
		"opaque link":              {symlinkEntry("d", canary), whiteoutOf("d")},
		"replaced parent":          {dirEntry("d", 0o755), fileEntry("d/a", "1"), symlinkEntry("d", canary), fileEntry("d/file", "x")},
		"replaced grandparent":     {dirEntry("g/d", 0o755), fileEntry("g/d/a", "1"), symlinkEntry("g", up+filepath.Dir(canary)), fileEntry("g/canary/file", "x")},
		"replaced and back":        {symlinkEntry("d", canary), dirEntry("d", 0o755), fileEntry("d/file", "x")},
		"node outside":             {symlinkEntry("d", canary), {Typeflag: tar.TypeChar, Name: "d/file", Devmajor: 1, Devminor: 3}},
		"device as parent":         {{Typeflag: tar.TypeChar, Name: "d", Devmajor: 1, Devminor: 3}, fileEntry("d/file", "x")},
		"fifo as parent, target":   {{Typeflag: tar.TypeFifo, Name: "f"}, linkEntry("g", "f"), fileEntry("f", "x")},
		"file as parent":           {fileEntry("f", "x"), fileEntry("f/g", "x")},
		"root is a file":           {fileEntry("x/..", "x")},
		"root is a link":           {symlinkEntry(".", canary), fileEntry("file", "x")},
		"dirs that climb":          {symlinkEntry("a", "."), symlinkEntry("b", "a/.."), fileEntry("b/../canary/file", "x")},
	}
}

func TestHostileLayers(t *testing.T) {
	root(t)
	for name := range hostile(newWorld(t)) {
		for _, base := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, lowest %v", name, base), func(t *testing.T) {
				w := newWorld(t)
				var buf bytes.Buffer
				tw := tar.NewWriter(&buf)
				for _, h := range hostile(w)[name] {
					writeRaw(t, tw, h)
				}
				tw.Close()
				if err := w.apply(buf.Bytes(), base, Limits{}); err != nil {
					t.Log(err)
				}
				w.check(t)
			})
		}
	}
}

// writeRaw writes a header of pack's form.
func writeRaw(t testing.TB, tw *tar.Writer, h tar.Header) {
	t.Helper()
	content := ""
	if h.Typeflag == tar.TypeReg {
		content, h.Linkname = h.Linkname, ""
		h.Size = int64(len(content))
	}
	h.ModTime = epoch
	if err := tw.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	io.WriteString(tw, content)
}

func TestRefused(t *testing.T) {
	root(t)
	huge := tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: 1 << 50, ModTime: epoch}
	var bomb bytes.Buffer
	if err := tar.NewWriter(&bomb).WriteHeader(&huge); err != nil {
		t.Fatal(err)
	}
	var zeros bytes.Buffer
	zw := gzip.NewWriter(&zeros)
	if _, err := io.CopyN(zw, zeroReader{}, 64<<20); err != nil {
		t.Fatal(err)
	}
	zw.Close()
	deep := strings.Repeat("d/", 600) + "f"
	many := make([]tar.Header, 20)
	dirs := make([]tar.Header, 20)
	for i := range many {
		many[i], dirs[i] = fileEntry(fmt.Sprint(i), ""), dirEntry(fmt.Sprint(i), 0o755)
	}
	for name, c := range map[string]struct {
		data   []byte
		limits Limits
		text   string
	}{
		"huge file":         {bomb.Bytes(), Limits{}, "bytes"},
		"bomb":              {zeros.Bytes(), Limits{Bytes: 1 << 20, Entries: 10}, "unpacks to more"},
		"deep":              {pack(t, fileEntry(deep, "")), Limits{}, "components"},
		"deep link":         {pack(t, linkEntry("x", deep)), Limits{}, "components"},
		"many entries":      {pack(t, many...), Limits{Entries: 10}, "more than 10 entries"},
		"many directories":  {pack(t, dirs...), Limits{Dirs: 10}, "more than 10 directories"},
		"many implied ones": {pack(t, fileEntry(strings.Repeat("d/", 30)+"f", "")), Limits{Dirs: 10}, "more than 10 directories"},
		"long path":         {pack(t, fileEntry(strings.Repeat(strings.Repeat("n", 200)+"/", 30)+"f", "")), Limits{}, "a path of"},
		"many names":        {pack(t, fileEntry("a", ""), symlinkEntry("b", strings.Repeat("c", 100))), Limits{Names: 100}, "names"},
		"names implied":     {pack(t, fileEntry(strings.Repeat("dir/", 30)+"f", "")), Limits{Names: 1000}, "names"},
		"many xattrs": {pack(t, tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o755, Format: tar.FormatPAX,
			PAXRecords: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("x", 200)}}), Limits{Names: 100}, "xattrs"},
		"many bytes":         {pack(t, fileEntry("a", "123456"), fileEntry("b", "123456")), Limits{Bytes: 10}, "more than 10 bytes"},
		"owner":              {pack(t, tar.Header{Typeflag: tar.TypeReg, Name: "f", Uid: 1 << 32, Format: tar.FormatPAX}), Limits{}, "owner"},
		"owner that is none": {pack(t, tar.Header{Typeflag: tar.TypeReg, Name: "f", Gid: 1<<32 - 1, Format: tar.FormatPAX}), Limits{}, "owner"},
		"device number":      {pack(t, tar.Header{Typeflag: tar.TypeBlock, Name: "f", Devmajor: 1 << 19}), Limits{}, "device"},
		"unknown type":       {pack(t, tar.Header{Typeflag: 'Z', Name: "f"}), Limits{}, "type"},
		"bzip2":              {[]byte("BZh91AY&SY"), Limits{}, "bzip2"},
		"text":               {[]byte(strings.Repeat("hello", 500)), Limits{}, "header"},
	} {
		t.Run(name, func(t *testing.T) {
			if asImages && name == "names implied" {
				t.Skip("an image has each by its last part alone")
			}
			w := newWorld(t)
			err := w.apply(c.data, false, c.limits)
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v", err)
			}
			w.check(t)
		})
	}
}

// TestHolesEnd gives up a layer whose file is a hole: nobody waits for it.
func TestHolesEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := &budget{limits: Limits{}.withDefaults(), disk: -1}
	content := &rationed{ctx, zeroReader{}, b}
	buf := make([]byte, 1<<10)
	if _, err := content.Read(buf); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := content.Read(buf); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestLongNames reach the kernel's limits, and its error.
func TestLongNames(t *testing.T) {
	root(t)
	w := newWorld(t)
	if err := w.apply(pack(t, fileEntry(strings.Repeat("n", 300), "")), false, Limits{}); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Errorf("%v", err)
	}
	w.check(t)
}

// stuck never ends reading until it is closed.
type stuck struct {
	data   *bytes.Reader
	closed chan struct{}
}

func (s *stuck) Read(p []byte) (int, error) {
	if n, _ := s.data.Read(p); n > 0 {
		return n, nil
	}
	<-s.closed
	return 0, os.ErrClosed
}

func (s *stuck) Close() error {
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	return nil
}

// TestStuckStream: an error in the middle ends the reading of what comes.
func TestStuckStream(t *testing.T) {
	root(t)
	data := pack(t, fileEntry("a", "1"), fileEntry("../x", strings.Repeat("x", aheadSize*2)))
	s := &stuck{data: bytes.NewReader(data), closed: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		_, err := Apply(context.Background(), s, Options{Dir: t.TempDir()})
		done <- err
	}()
	select {
	case err := <-done:
		if !errdefs.IsInvalidArgument(err) {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not return")
	}
}

// TestLowersFail: a layer that needs another that failed, fails.
func TestLowersFail(t *testing.T) {
	root(t)
	w := newWorld(t)
	failure := errors.New("no layer below")
	_, err := Apply(context.Background(), reader(pack(t, fileEntry("new/f", "x"))), Options{
		Dir: w.layer, Lowers: func(context.Context) ([]*Lower, error) { return nil, failure },
	})
	if !errors.Is(err, failure) {
		t.Errorf("%v", err)
	}
	w.check(t)
}

// FuzzApply applies anything upon a layer, and upon nothing, and looks whether
// the rest of the world is as it was.
func FuzzApply(f *testing.F) {
	root(f)
	for _, entries := range hostile(&world{dir: "/tmp"}) {
		f.Add(pack(f, entries...))
	}
	f.Add(pack(f, dirEntry("d", 0o755), fileEntry("d/f", "1"), whiteoutOf("lower"), opaqueOf("d"), linkEntry("copied", "lower")))
	var gz bytes.Buffer
	zw := gzip.NewWriter(&gz)
	zw.Write(pack(f, fileEntry("f", "1")))
	zw.Close()
	f.Add(gz.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		w := newWorld(t)
		limits := Limits{Entries: 100, Dirs: 100, Bytes: 1 << 20, Depth: 64}
		// Whether it is refused or contained, nothing else may happen.
		_ = w.apply(data, false, limits)
		if w.hash(t) != w.before {
			t.Fatal("something outside the layer was touched")
		}
	})
}
