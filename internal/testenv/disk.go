package testenv

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Disk is a small ext4 of a file, mounted until the test ends. A copy of the
// file is what a power cut in that moment would leave.
type Disk struct {
	// Image is the file, and Dir where it is mounted.
	Image, Dir string

	t testing.TB
}

// NewDisk makes a disk of so many bytes. Nothing is written to it by time, as
// far as that can be had, so that what is not synced is lost in a copy.
func NewDisk(t testing.TB, bytes int64, mkfs ...string) *Disk {
	t.Helper()
	d := &Disk{t: t, Image: filepath.Join(t.TempDir(), "disk")}
	f, err := os.Create(d.Image)
	if err == nil {
		err = f.Truncate(bytes)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	// No blocks are kept for root, who runs the tests.
	d.run("mkfs.ext4", append(append([]string{"-q", "-F", "-m", "0"}, mkfs...), d.Image)...)
	d.Dir = d.Mount(d.Image)
	return d
}

// Mount mounts an image until the test ends, and returns where.
func (d *Disk) Mount(image string) string {
	d.t.Helper()
	dir, err := os.MkdirTemp("", "disk-")
	if err != nil {
		d.t.Fatal(err)
	}
	d.run("mount", "-o", "loop,commit=1000", image, dir)
	d.t.Cleanup(func() { d.Unmount(dir) })
	return dir
}

// Unmount unmounts one; one that is not mounted is fine.
func (d *Disk) Unmount(dir string) {
	d.t.Helper()
	if err := unix.Unmount(dir, 0); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		d.t.Errorf("unmount %s: %v", dir, err)
	}
	_ = os.Remove(dir)
}

// Cut copies the disk as a power cut would leave it.
func (d *Disk) Cut() (image string) {
	d.t.Helper()
	image = filepath.Join(d.t.TempDir(), "crash")
	d.run("cp", "--sparse=always", d.Image, image)
	return image
}

// Fill takes all free bytes.
func (d *Disk) Fill() {
	d.t.Helper()
	f, err := os.Create(filepath.Join(d.Dir, "ballast"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; {
		if _, err = f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	if err := f.Sync(); err != nil && err != unix.ENOSPC && !strings.Contains(err.Error(), "no space") {
		d.t.Fatal(err)
	}
}

// FillInodes takes all free inodes.
func (d *Disk) FillInodes() {
	d.t.Helper()
	dir, err := os.MkdirTemp(d.Dir, "ballast-")
	if err != nil {
		d.t.Fatal(err)
	}
	for {
		f, err := os.CreateTemp(dir, "")
		if err != nil {
			return
		}
		f.Close()
	}
}

func (d *Disk) run(program string, args ...string) {
	d.t.Helper()
	if out := Run(d.t, program, args...); out.Code != 0 {
		d.t.Fatalf("%s: exit code %d: %s%s", program, out.Code, out.Stdout, out.Stderr)
	}
}
