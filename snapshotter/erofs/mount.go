package erofs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount mounts an image read-only at a directory: the file itself where Linux
// can (6.12, unless its filesystem is stacked too deep), else through a loop
// device that goes with the mount.
func Mount(image, target string) error {
	err := mountSource(image, target)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.ENOTBLK) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("mount image %s: %w", image, err)
	}
	if lerr := MountLoop(image, target); lerr != nil {
		return fmt.Errorf("mount image %s: from the file: %w; through a loop device: %w", image, err, lerr)
	}
	return nil
}

// MountLoop is Mount through a loop device, whatever the kernel.
func MountLoop(image, target string) error {
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	device, err := attach(f)
	if err != nil {
		return err
	}
	// The device goes with its last user: the mount, or with this.
	defer device.Close()
	return mountSource(device.Name(), target)
}

// mountSource mounts a block device or a file.
func mountSource(source, target string) error {
	fs, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("fsopen erofs", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", source); err != nil {
		return os.NewSyscallError("fsconfig source", err)
	}
	if err := unix.FsconfigSetFlag(fs, "ro"); err != nil {
		return os.NewSyscallError("fsconfig ro", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("create erofs: %w", err)
	}
	tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	return nil
}

// attachAttempts bounds how often another process may take the free device
// that was found.
const attachAttempts = 64

// attach gives a file a loop device, which is freed when nobody uses it.
func attach(f *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range attachAttempts {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, os.NewSyscallError("ioctl LOOP_CTL_GET_FREE", err)
		}
		device, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR}}
		copy(config.Info.File_name[:len(config.Info.File_name)-1], f.Name())
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		device.Close()
		if err != unix.EBUSY {
			return nil, os.NewSyscallError("ioctl LOOP_CONFIGURE", err)
		}
	}
	return nil, fmt.Errorf("no loop device is free: %w", unix.EBUSY)
}

// Available tells whether this kernel has EROFS, and why not.
func Available() error {
	list, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	for line := range strings.SplitSeq(string(list), "\n") {
		if fields := strings.Fields(line); len(fields) > 0 && fields[len(fields)-1] == "erofs" {
			return nil
		}
	}
	// It may be a module: asking for it loads it.
	fs, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("this kernel has no EROFS: %w", err)
	}
	return unix.Close(fs)
}

// Verity makes the filesystem check each read of an image from now on, where
// it has fs-verity, and returns the digest that the kernel computed. It
// returns nil where there is none.
func Verity(image string) ([]byte, error) {
	f, err := os.Open(filepath.Clean(image))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	err = enableVerity(int(f.Fd()))
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) {
		return nil, nil
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("enable fs-verity: %w", err)
	}
	return MeasureVerity(f)
}
