package sandbox

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// maxConsoleName bounds the name that comes with a terminal, in bytes.
const maxConsoleName = 4096

// consoleTimeout is how long, in seconds, a terminal may take to arrive once
// its process was started.
const consoleTimeout = 10

// consolePair makes the socket that a terminal's master comes over.
func consolePair() (near, far *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make console socket: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "console"), os.NewFile(uintptr(fds[1]), "console"), nil
}

// receiveConsole reads the one message that libcontainer sends over a console
// socket: a name, with the terminal's master beside it (SCM_RIGHTS).
func receiveConsole(socket *os.File) (*os.File, error) {
	fd := int(socket.Fd())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: consoleTimeout}); err != nil {
		return nil, fmt.Errorf("receive terminal: %w", err)
	}
	name := make([]byte, maxConsoleName)
	rights := make([]byte, unix.CmsgSpace(4))
	var n, nrights int
	var err error
	for {
		n, nrights, _, _, err = unix.Recvmsg(fd, name, rights, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("receive terminal: %w", err)
	}
	if n == 0 {
		return nil, errors.New("receive terminal: none was sent")
	}
	master, err := oneDescriptor(rights[:nrights])
	if err != nil {
		return nil, fmt.Errorf("receive terminal: %w", err)
	}
	// Reads of a descriptor that does not block can be interrupted.
	if err := unix.SetNonblock(master, true); err != nil {
		unix.Close(master)
		return nil, fmt.Errorf("receive terminal: %w", err)
	}
	return os.NewFile(uintptr(master), "terminal"), nil
}

// oneDescriptor takes the only descriptor out of a control message.
func oneDescriptor(control []byte) (int, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return -1, err
	}
	if len(messages) != 1 {
		return -1, fmt.Errorf("%d control messages", len(messages))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return -1, err
	}
	if len(fds) != 1 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return -1, fmt.Errorf("%d descriptors", len(fds))
	}
	return fds[0], nil
}

// setSize sets the size of a terminal.
func setSize(master *os.File, size TerminalSize) error {
	conn, err := master.SyscallConn()
	if err != nil {
		return err
	}
	var ioctl error
	err = conn.Control(func(fd uintptr) {
		ioctl = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width})
	})
	return errors.Join(err, ioctl)
}
