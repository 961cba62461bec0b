package procfs

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCount(t *testing.T) {
	// A child has no descriptors that others open and close meanwhile.
	near, far, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	child := exec.Command("sleep", "1000")
	child.ExtraFiles = []*os.File{far}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}()
	far.Close()
	got, err := Count(t.Context(), []int{child.Process.Pid, 1 << 30})
	if err != nil || got.Files < 4 || got.Sockets < 1 || got.Sockets >= got.Files {
		t.Errorf("%+v, %v", got, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Count(ended, []int{os.Getpid()}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// pair makes two connected sockets.
func pair() (near, far *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far"), nil
}

func TestMaxOpenFiles(t *testing.T) {
	var want unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &want); err != nil {
		t.Fatal(err)
	}
	if got, ok := MaxOpenFiles(os.Getpid()); !ok || got != want.Cur {
		t.Errorf("%d, %v; want %d", got, ok, want.Cur)
	}
	if _, ok := MaxOpenFiles(1 << 30); ok {
		t.Error("limit of no process")
	}
}

func TestStatFilesystem(t *testing.T) {
	fs, err := StatFilesystem("/proc")
	if err != nil || fs.Device != "/proc" {
		t.Errorf("%+v, %v", fs, err)
	}
	dir := t.TempDir()
	if fs, err = StatFilesystem(dir); err != nil || fs.Bytes == 0 || fs.FreeInodes > fs.Inodes || !filepath.IsAbs(fs.Device) && len(fs.Device) < 3 {
		t.Errorf("%+v, %v", fs, err)
	}
	if _, err := StatFilesystem(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if got := Disk(4095, 1); got != "4095:1" {
		t.Error(got)
	}
}

func FuzzMaxOpenFiles(f *testing.F) {
	f.Add([]byte("Limit  Soft Limit\nMax open files            1024  4096  files\n"))
	f.Add([]byte("Max open files"))
	f.Fuzz(func(_ *testing.T, data []byte) { parseMaxOpenFiles(data) })
}
