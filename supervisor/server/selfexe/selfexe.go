// Package selfexe lets the supervisor run from a sealed copy of its own
// program, so that no container can write to the file on the host through
// /proc/PID/exe (CVE-2019-5736), and libcontainer need not seal a copy at each
// start.
package selfexe

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// seals are those that libcontainer asks for before it trusts a program.
const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// Sealed reports whether this process runs from a sealed copy.
func Sealed() bool {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return false
	}
	defer f.Close()
	got, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	return err == nil && got&seals == seals
}

// Respawn starts a sealed copy of this program with the same arguments and
// environment, standard output and error, and the given descriptors under the
// same numbers (3 and up, in order), in a session of its own. The caller ends,
// which leaves the copy to the system's first process.
func Respawn(files ...*os.File) error {
	exe, err := sealedCopy()
	if err != nil {
		return fmt.Errorf("seal own program: %w", err)
	}
	defer exe.Close()
	cmd := &exec.Cmd{
		Path:        "/proc/self/fd/" + strconv.Itoa(int(exe.Fd())),
		Args:        os.Args,
		Env:         os.Environ(),
		Dir:         "/",
		Stdout:      os.Stdout,
		Stderr:      os.Stderr,
		ExtraFiles:  files,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	return cmd.Start()
}

// sealedCopy copies the program into memory that nothing can change any more.
func sealedCopy() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("nodesupervisor", flags|unix.MFD_EXEC)
	if err == unix.EINVAL {
		// Linux before 6.3 does not know MFD_EXEC.
		fd, err = unix.MemfdCreate("nodesupervisor", flags)
	}
	if err != nil {
		return nil, err
	}
	// Well above any number that the child's files are moved to.
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 64)
	unix.Close(fd)
	if err != nil {
		return nil, err
	}
	exe := os.NewFile(uintptr(high), "memfd:nodesupervisor")
	if _, err := io.Copy(exe, self); err != nil {
		exe.Close()
		return nil, err
	}
	if err := exe.Chmod(0o511); err != nil {
		exe.Close()
		return nil, err
	}
	if _, err := unix.FcntlInt(exe.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		exe.Close()
		return nil, err
	}
	return exe, nil
}
