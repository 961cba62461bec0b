package unpack

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// TestRepair finds what is wrong with a layer, and makes it right where it is.
func TestRepair(t *testing.T) {
	root(t)
	setID := fileEntry("bin/su", "program")
	setID.Mode = 0o4755
	data := pack(t, dirEntry("bin", 0o755), setID, linkEntry("bin/sudo", "bin/su"), fileEntry("lost", "1"), fileEntry("short", "12"),
		fileEntry("whole", "1"), fileEntry("twice", "first"), fileEntry("twice", "second"), dirEntry("d", 0o755), fileEntry("d/x", "1"), symlinkEntry("d", "bin"))
	dir, good := t.TempDir(), t.TempDir()
	var sums []byte
	for _, d := range []string{good, dir} {
		res, err := Apply(t.Context(), reader(data), Options{Dir: d})
		if err != nil {
			t.Fatal(err)
		}
		sums = res.Sums
	}
	damaged := func() []string {
		t.Helper()
		var list []string
		err := Verify(t.Context(), dir, sums, func(path string, err error) error {
			if !errdefs.IsDataLoss(err) {
				t.Errorf("%s: %v", path, err)
			}
			list = append(list, path)
			return nil
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if list := damaged(); len(list) > 0 {
		t.Errorf("damaged from the beginning: %q", list)
	}
	f, err := os.OpenFile(filepath.Join(dir, "bin/sudo"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flip(t, f, 3)
	for _, err := range []error{os.Remove(filepath.Join(dir, "lost")), os.Truncate(filepath.Join(dir, "short"), 1)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	list := damaged()
	if !slices.Equal(list, []string{"bin/su", "lost", "short"}) {
		t.Errorf("damaged: %q", list)
	}
	if err := Repair(dir, good, list); err != nil {
		t.Fatal(err)
	}
	if list := damaged(); len(list) > 0 {
		t.Errorf("damaged after repair: %q", list)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "bin/sudo"), &st); err != nil || st.Mode != unix.S_IFREG|0o4755 || st.Nlink != 2 {
		t.Errorf("repaired: mode %o, %d links, %v", st.Mode, st.Nlink, err)
	}
	if err := Verify(t.Context(), dir, sums[:len(sums)-1], nil, nil); !errdefs.IsDataLoss(err) {
		t.Errorf("damaged checksums: %v", err)
	}
}

// FuzzSums: damaged checksums are refused, whatever they are.
func FuzzSums(f *testing.F) {
	var s sums
	s.add("a/b", 10, 1)
	s.add("a/c", 0, 2)
	s.remove("a")
	f.Add(s.encode())
	f.Add([]byte(sumsMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := decodeSums(data); err != nil && !errdefs.IsDataLoss(err) {
			t.Error(err)
		}
		// And behind a checksum that is right.
		s := sums{buf: append([]byte(sumsMagic), data...)}
		if _, err := decodeSums(s.encode()); err != nil && !errdefs.IsDataLoss(err) {
			t.Error(err)
		}
	})
}

// FuzzImage: whatever comes, an image is made that Linux would mount, or a
// clear error.
func FuzzImage(f *testing.F) {
	f.Add(pack(f, dirEntry("d", 0o755), fileEntry("d/f", "1"), linkEntry("l", "d/f"), symlinkEntry("s", "d"), fileEntry("s/g", "2")))
	f.Add(pack(f, whiteoutOf("x"), opaqueOf("d"), tar.Header{Typeflag: tar.TypeChar, Name: "c", Devmajor: 1, Devminor: 3}))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		limits := Limits{Entries: 1000, Dirs: 1000, Bytes: 1 << 20}
		_, sums, err := ApplyImage(t.Context(), reader(bytes.Clone(data)), ImageOptions{File: file, Limits: limits})
		if err != nil {
			return
		}
		if err := sums.Verify(file, nil); err != nil {
			t.Error(err)
		}
	})
}
