package erofs

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// See Documentation/filesystems/fsverity.rst of Linux.
const (
	veritySHA256 = 1
	// maxVerityDigest is the longest digest there is, in bytes.
	maxVerityDigest = 64
)

// verityDigest is struct fsverity_digest with room for the digest.
type verityDigest struct {
	algorithm, size uint16
	digest          [maxVerityDigest]byte
}

func enableVerity(fd int) error {
	arg := unix.FsverityEnableArg{Version: 1, Hash_algorithm: veritySHA256, Block_size: blockSize}
	return ioctl(fd, unix.FS_IOC_ENABLE_VERITY, unsafe.Pointer(&arg))
}

// MeasureVerity returns the digest by which the filesystem checks a file, or
// nil when it does not.
func MeasureVerity(f *os.File) ([]byte, error) {
	d := verityDigest{size: maxVerityDigest}
	err := ioctl(int(f.Fd()), unix.FS_IOC_MEASURE_VERITY, unsafe.Pointer(&d))
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOTTY) {
		return nil, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("ioctl FS_IOC_MEASURE_VERITY", err)
	}
	return d.digest[:min(d.size, maxVerityDigest)], nil
}

func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}
