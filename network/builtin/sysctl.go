package builtin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const procSysNet = "/proc/sys/net"

// setSysctl writes a sysctl below net of the calling thread's network
// namespace; each part is a name of its own, since interfaces may have dots.
func setSysctl(value string, parts ...string) error {
	path := filepath.Join(append([]string{procSysNet}, parts...)...)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(value)
		f.Close()
	}
	if err != nil {
		return fmt.Errorf("set sysctl net/%s to %s: %w", filepath.Join(parts...), value, err)
	}
	return nil
}

// trySysctl is setSysctl for what a kernel without IPv6 does not have.
func trySysctl(value string, parts ...string) error {
	err := setSysctl(value, parts...)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EROFS) {
		return nil
	}
	return err
}

// sysctl reads a sysctl below net; empty when there is no such one.
func sysctl(parts ...string) string {
	data, err := os.ReadFile(filepath.Join(append([]string{procSysNet}, parts...)...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// ensureSysctl writes a sysctl unless it has the value already, so that a
// read-only /proc/sys is enough when an administrator has set it.
func ensureSysctl(value string, parts ...string) error {
	if sysctl(parts...) == value {
		return nil
	}
	return setSysctl(value, parts...)
}
