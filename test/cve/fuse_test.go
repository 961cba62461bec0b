package cve

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// hung is a mounted file system whose root folder can be looked at, and that answers nothing else: who asks for a file
// in it hangs in the kernel, and not even SIGKILL wakes it, until release.
type hung struct {
	t    *testing.T
	dir  string
	fd   int
	wake int           // an event descriptor that ends serving
	done chan struct{} // closed when serving has ended
	once sync.Once
}

// Of linux/fuse.h.
const (
	fuseGetattr = 3
	fuseInit    = 26
	headerIn    = 40
	headerOut   = 16
	attrOut     = 104
	initOut     = 64
)

func newHung(t *testing.T) *hung {
	t.Helper()
	dir, err := os.MkdirTemp("", "na-hung-")
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		os.Remove(dir)
		t.Skipf("no FUSE on this machine: %v", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)
	if err := unix.Mount("hung", dir, "fuse.hung", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		t.Fatal(err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	h := &hung{t: t, dir: dir, fd: fd, wake: wake, done: make(chan struct{})}
	go h.serve()
	t.Cleanup(h.release)
	return h
}

// serve answers INIT and GETATTR of the root, and swallows the rest.
func (h *hung) serve() {
	defer close(h.done)
	request := make([]byte, 1<<17)
	for {
		ready := []unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLIN}, {Fd: int32(h.wake), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, -1); err == nil && ready[1].Revents != 0 {
			return
		}
		size, err := unix.Read(h.fd, request)
		if err == unix.EINTR || err == unix.ENOENT || err == unix.EAGAIN {
			continue
		}
		if err != nil || size < headerIn {
			return
		}
		order := binary.LittleEndian
		operation, id, node := order.Uint32(request[4:]), request[8:16], order.Uint64(request[16:])
		var answer []byte
		switch {
		case operation == fuseInit:
			answer = make([]byte, headerOut+initOut)
			order.PutUint32(answer[headerOut:], 7)
			order.PutUint32(answer[headerOut+4:], 31)
			order.PutUint32(answer[headerOut+20:], 4096) // max_write
		case operation == fuseGetattr && node == 1:
			answer = make([]byte, headerOut+attrOut)
			order.PutUint64(answer[headerOut+16:], 1)       // inode
			order.PutUint32(answer[headerOut+76:], 0o40755) // mode
			order.PutUint32(answer[headerOut+80:], 2)       // links
		default:
			continue
		}
		order.PutUint32(answer, uint32(len(answer)))
		copy(answer[8:], id)
		if _, err := unix.Write(h.fd, answer); err != nil {
			return
		}
	}
}

// release lets go of all who hang, with an error, and takes the file system away.
func (h *hung) release() {
	h.once.Do(func() {
		_, _ = unix.Write(h.wake, binary.NativeEndian.AppendUint64(nil, 1))
		<-h.done
		unix.Close(h.wake)
		// With the last descriptor the kernel gives up waiting for answers.
		unix.Close(h.fd)
		if err := unix.Unmount(h.dir, unix.MNT_DETACH); err != nil {
			h.t.Errorf("unmount: %v", err)
		}
		os.Remove(h.dir)
	})
}
