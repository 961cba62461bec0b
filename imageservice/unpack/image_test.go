package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/snapshotter"
	"github.com/nodeagent/nodeagent/snapshotter/erofs"
)

// asImages makes the tests of directories tests of EROFS images.
var asImages bool

// TestImages runs what holds for directories on images.
func TestImages(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	asImages = true
	defer func() { asImages = false }()
	for name, test := range map[string]func(*testing.T){
		"Whiteouts": TestWhiteouts, "WhiteoutInLowestLayer": TestWhiteoutInLowestLayer, "Duplicates": TestDuplicates,
		"ReplacedWithWhiteouts": TestReplacedWithWhiteouts, "LinkedDirectories": TestLinkedDirectories, "HardLinks": TestHardLinks, "Metadata": TestMetadata,
		"AgainstFlattener": TestAgainstFlattener, "LongNames": TestLongNames,
		"HostileLayers": TestHostileLayers, "Refused": TestRefused,
	} {
		t.Run(name, test)
	}
}

// applyImage is apply into an image, mounted like a layer.
func (i *image) applyImage(key string, data []byte) error {
	i.t.Helper()
	f, err := os.Create(filepath.Join(i.t.TempDir(), key))
	if err != nil {
		i.t.Fatal(err)
	}
	defer f.Close()
	opts := ImageOptions{File: f, Lowers: i.below()}
	_, sums, err := ApplyImage(i.t.Context(), reader(data), opts)
	if err != nil {
		return err
	}
	if err := sums.Verify(f, nil); err != nil {
		i.t.Error(err)
	}
	i.add(mountImage(i.t, f.Name()))
	return nil
}

// mountImage mounts an image until the test ends.
func mountImage(t testing.TB, file string) string {
	t.Helper()
	dir := t.TempDir()
	if err := erofs.Mount(file, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := snapshotter.Unmount(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// mounts is how the layers so far are mounted.
func (i *image) mounts() ([]mount.Mount, error) {
	if !asImages {
		return i.s.View(context.Background(), "view", i.top)
	}
	if len(i.dirs) == 1 {
		return []mount.Mount{{Type: "bind", Source: i.dirs[0], Options: []string{"ro"}}}, nil
	}
	return []mount.Mount{{Type: "overlay", Options: []string{"index=off", "lowerdir=" + strings.Join(i.dirs, ":")}}}, nil
}

// TestImageOfManyFiles crosses segments and blocks in every way, and compares
// what Linux reads.
func TestImageOfManyFiles(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	want := map[string][sha256.Size]byte{}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	sizes := []int{0, 1, 2047, 2048, 2049, 4032, 4095, 4096, 4097, 6144, 6145, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3<<20 + 100}
	for n := range 4000 {
		size := rnd.IntN(12000)
		if n < 3*len(sizes) {
			size = sizes[n%len(sizes)]
		}
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(rnd.Uint32())
		}
		name := fmt.Sprintf("dir%d/%s%d", n%7, strings.Repeat("n", n%40), n)
		want[name] = sha256.Sum256(content)
		tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(size), ModTime: epoch})
		tw.Write(content)
	}
	tw.Close()
	f, err := os.Create(filepath.Join(t.TempDir(), "layer"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	res, sums, err := ApplyImage(t.Context(), reader(buf.Bytes()), ImageOptions{File: f})
	if err != nil {
		t.Fatal(err)
	}
	if over := float64(res.Bytes) / float64(buf.Len()); over > 1.1 {
		t.Errorf("the image takes %.2f of the archive", over)
	}
	dir := mountImage(t, f.Name())
	for name, sum := range want {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if sha256.Sum256(data) != sum {
			t.Errorf("%s has other content", name)
		}
	}
	if names, err := filepath.Glob(dir + "/*/*"); err != nil || len(names) != len(want) {
		t.Errorf("%d names, %v", len(names), err)
	}
	flip(t, f, res.Bytes/2)
	if err := sums.Verify(f, nil); err == nil {
		t.Error("a flipped bit is not found")
	}
}

// flip flips one bit.
func flip(t *testing.T, f *os.File, off int64) {
	t.Helper()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

func TestImageOfSparseFile(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	const size = 2<<30 + 77
	f, err := os.Create(filepath.Join(t.TempDir(), "layer"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := erofs.NewWriter(f)
	defer w.Close()
	content := io.MultiReader(strings.NewReader("begin"), io.LimitReader(zeroReader{}, size-8), strings.NewReader("end"))
	nid, err := w.Sparse(erofs.Attr{Mode: 0o100644}, size, content)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Finish(&erofs.Dir{Attr: plainDir(), Entries: map[string]erofs.Entry{"s": {Type: erofs.TypeRegular, Inode: nid}}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := os.Open(filepath.Join(mountImage(t, f.Name()), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	head, tail := make([]byte, 6), make([]byte, 4)
	if _, err := s.ReadAt(head, 0); err != nil || string(head) != "begin\x00" {
		t.Errorf("%q, %v", head, err)
	}
	if _, err := s.ReadAt(tail, size-4); err != nil || string(tail) != "\x00end" {
		t.Errorf("%q, %v", tail, err)
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 > 4<<20 {
		t.Errorf("it takes %d bytes, %v", st.Blocks*512, err)
	}
}
