package fdpass

import (
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// pair are the two ends of a Unix socket.
func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
	}
	return ends[0], ends[1]
}

// open counts the open files of this process.
func open(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// What is no message of ours is refused, and none of its descriptors stays.
func TestReceiveRefuses(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	whole := make([]byte, TokenSize)
	for name, one := range map[string]struct {
		data []byte
		fds  int
	}{
		"short":               {whole[:3], 1},
		"without mask":        {whole, 2},
		"no descriptors":      {append(whole[:TokenSize:TokenSize], 7), 0},
		"fewer than the mask": {append(whole[:TokenSize:TokenSize], 7), 2},
		"more than the mask":  {append(whole[:TokenSize:TokenSize], 1), 3},
		"unknown streams":     {append(whole[:TokenSize:TokenSize], 0xff), 4},
		"very many":           {append(whole[:TokenSize:TokenSize], 15), 200},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := pair(t)
			before := open(t)
			var rights []byte
			if one.fds > 0 {
				fds := make([]int, one.fds)
				for i := range fds {
					fds[i] = int(null.Fd())
				}
				rights = unix.UnixRights(fds...)
			}
			if _, _, err := ours.WriteMsgUnix(one.data, rights, nil); err != nil {
				t.Fatal(err)
			}
			if _, set, err := Receive(theirs); err == nil {
				set.Close()
				t.Error("it is taken")
			}
			if now := open(t); now != before {
				t.Errorf("%d files are open, before %d", now, before)
			}
		})
	}
}

// Files arrive in their places, closed to programs and in blocking mode.
func TestSendFiles(t *testing.T) {
	ours, theirs := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	token := []byte("0123456789abcdef")
	if err := sendFiles(ours, token, &Set{Stdin: r, Stderr: w}); err != nil {
		t.Fatal(err)
	}
	got, set, err := Receive(theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	if string(got) != string(token) || set.Stdin == nil || set.Stdout != nil || set.Stderr == nil || set.Console != nil {
		t.Errorf("%q with %+v", got, set)
	}
	for _, f := range []*os.File{set.Stdin, set.Stderr} {
		raw, err := f.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		// Fd would change the mode.
		_ = raw.Control(func(fd uintptr) {
			if mode, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || mode&unix.O_NONBLOCK != 0 {
				t.Errorf("mode %x, %v", mode, err)
			}
		})
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("flags %x, %v", flags, err)
		}
	}
}
