package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

func mountOn(t *testing.T, source, target, kind string, flags uintptr) {
	t.Helper()
	if err := os.MkdirAll(target, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(source, target, kind, flags, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) }) // if it is still there
}

// A purge removes what is ours, whatever links lead to it, and nothing of what a volume is of.
func TestRemoveFolder(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	theirs := filepath.Join(dir, "theirs")
	if err := os.Mkdir(theirs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(theirs, "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("disk", filepath.Join(dir, "var")); err != nil {
		t.Fatal(err)
	}
	for name, folder := range map[string]string{
		"plain": "plain/root", "behind a link": "var/root", "a link": "link", "a mount": "mounted",
	} {
		t.Run(name, func(t *testing.T) {
			path, real := filepath.Join(dir, folder), filepath.Join(dir, folder)
			switch name {
			case "behind a link":
				real = filepath.Join(dir, "disk/root")
			case "a link":
				real = filepath.Join(dir, "elsewhere")
				if err := os.Symlink(real, path); err != nil {
					t.Fatal(err)
				}
			case "a mount":
				mountOn(t, "tmpfs", real, "tmpfs", 0)
			}
			volume := filepath.Join(real, "volumes/v")
			mountOn(t, theirs, volume, "", unix.MS_BIND)
			// What is mounted below is hidden by what is mounted above.
			mountOn(t, "tmpfs", filepath.Join(real, "layers/a"), "tmpfs", 0)
			mountOn(t, "tmpfs", filepath.Join(real, "layers"), "tmpfs", 0)
			if err := removeFolder(path); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(theirs, "kept")); err != nil {
				t.Fatalf("what the volume is of: %v", err)
			}
			entries, err := os.ReadDir(real)
			if stays := name == "a link" || name == "a mount"; stays && (err != nil || len(entries) > 0) || !stays && !os.IsNotExist(err) {
				t.Errorf("left: %v, %v", entries, err)
			}
			if err := removeFolder(filepath.Join(dir, "none")); err != nil {
				t.Errorf("what is gone: %v", err)
			}
		})
	}
}
