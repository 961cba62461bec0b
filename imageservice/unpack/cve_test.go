package unpack

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// CVE-2021-32760, CVE-2021-41089: modes and owners of the host's files changed
// through links in a layer.
func TestCVE202132760ModesOfTheHost(t *testing.T) {
	root(t)
	for name, entries := range map[string]func(canary string) []tar.Header{
		"directory through a link": func(c string) []tar.Header {
			return []tar.Header{symlinkEntry("d", c), {Typeflag: tar.TypeDir, Name: "d", Mode: 0o4777, Uid: 1000, Gid: 1000}}
		},
		"directory below a link": func(c string) []tar.Header {
			return []tar.Header{symlinkEntry("d", c), {Typeflag: tar.TypeDir, Name: "d/sub", Mode: 0o4777, Uid: 1000, Gid: 1000}}
		},
		"file through a link": func(c string) []tar.Header {
			return []tar.Header{symlinkEntry("f", c+"/file"), {Typeflag: tar.TypeReg, Name: "f", Mode: 0o4777, Uid: 1000}}
		},
		"hard link to a link, then its mode": func(c string) []tar.Header {
			return []tar.Header{symlinkEntry("s", c+"/file"), linkEntry("h", "s"), {Typeflag: tar.TypeReg, Name: "h", Mode: 0o4777, Uid: 1000}}
		},
		"hard link through a link": func(c string) []tar.Header {
			return []tar.Header{symlinkEntry("d", c), linkEntry("h", "d/file"), {Typeflag: tar.TypeReg, Name: "h", Mode: 0o4777, Uid: 1000}}
		},
		"device through a link": func(c string) []tar.Header {
			return []tar.Header{symlinkEntry("n", c+"/file"), {Typeflag: tar.TypeFifo, Name: "n", Mode: 0o777, Uid: 1000}}
		},
		"times through a link": func(c string) []tar.Header {
			return []tar.Header{symlinkEntry("d", c), dirEntry("d/sub", 0o700), {Typeflag: tar.TypeSymlink, Name: "d/sub/x", Linkname: "y", Uid: 1000}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			var buf bytes.Buffer
			tw := tar.NewWriter(&buf)
			for _, h := range entries(filepath.Join(w.dir, "canary")) {
				writeRaw(t, tw, h)
			}
			tw.Close()
			if err := w.apply(buf.Bytes(), true, Limits{}); err != nil {
				t.Log(err)
			}
			w.check(t)
		})
	}
}

// CVE-2025-47290: a folder of the layer that becomes a link between its being
// looked at and its being used.
func TestCVE202547290Racer(t *testing.T) {
	root(t)
	w := newWorld(t)
	var entries []tar.Header
	for i := range 300 {
		entries = append(entries, dirEntry("d", 0o755), dirEntry("d/sub", 0o777), fileEntry(fmt.Sprintf("d/sub/f%d", i), "x"), fileEntry("d/file", "x"))
	}
	packed := pack(t, entries...)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		d, evil := filepath.Join(w.layer, "d"), filepath.Join(w.layer, "evil")
		_ = os.Symlink(filepath.Join(w.dir, "canary"), evil)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, d, unix.AT_FDCWD, evil, unix.RENAME_EXCHANGE)
			}
		}
	}()
	for range 3 {
		if err := w.apply(packed, true, Limits{}); err != nil {
			t.Log(err)
		}
	}
	close(stop)
	<-stopped
	os.Remove(filepath.Join(w.layer, "evil"))
	w.check(t)
}

// A layer that unpacks to more than the disk has ends before the disk is full,
// whatever it consists of.
func TestRoom(t *testing.T) {
	root(t)
	big := []tar.Header{fileEntry("f", string(bytes.Repeat([]byte("bomb"), 7<<20)))}
	var small []tar.Header
	for n := range 7000 {
		small = append(small, fileEntry(fmt.Sprint(n), strings.Repeat("bomb", 1000)))
	}
	for name, entries := range map[string][]tar.Header{"one file": big, "many files": small} {
		data := pack(t, entries...)
		for _, images := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, image %v", name, images), func(t *testing.T) {
				dir := t.TempDir()
				if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=32m"); err != nil {
					t.Fatal(err)
				}
				defer unix.Unmount(dir, unix.MNT_DETACH)
				var err error
				limits := Limits{KeepFree: 16 << 20}
				if images {
					f, ferr := os.Create(filepath.Join(dir, "image"))
					if ferr != nil {
						t.Fatal(ferr)
					}
					defer f.Close()
					_, _, err = ApplyImage(t.Context(), reader(data), ImageOptions{File: f, Limits: limits})
				} else {
					_, err = Apply(t.Context(), reader(data), Options{Dir: dir, Limits: limits})
				}
				if !errdefs.IsResourceExhausted(err) {
					t.Errorf("%v", err)
				}
			})
		}
	}
}
