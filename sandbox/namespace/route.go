package namespace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// answerSize holds the longest datagram the kernel answers a dump with
// (NETLINK_MAX_RECVMSGS aside, 32 KiB since kernel 4.4).
const answerSize = 32 << 10

var answers = sync.Pool{New: func() any { return new([answerSize]byte) }}

// route is a short conversation with rtnetlink, for one goroutine. A netlink
// library would allocate more for each answer than all of it takes.
type route struct {
	fd     int
	buffer *[answerSize]byte
}

// dialRoute begins one; close ends it.
func dialRoute() (*route, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	wait := unix.NsecToTimeval(dumpTimeout.Nanoseconds())
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
	if err == nil {
		// Else the kernel ignores filters of dumps that it does not know.
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	return &route{fd: fd, buffer: answers.Get().(*[answerSize]byte)}, nil
}

func (r *route) close() {
	unix.Close(r.fd)
	answers.Put(r.buffer)
}

// exchange sends a request and gives each message of the answer, without its
// header, to each. Messages must not be kept. each may be nil.
func (r *route) exchange(request *nl.NetlinkRequest, each func(message []byte) error) error {
	if err := unix.Sendto(r.fd, request.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for {
		n, _, err := unix.Recvfrom(r.fd, r.buffer[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		messages, err := syscall.ParseNetlinkMessage(r.buffer[:n])
		if err != nil {
			return err
		}
		for _, m := range messages {
			if m.Header.Seq != request.Seq {
				continue
			}
			switch m.Header.Type {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				return ended(m.Data)
			}
			if each == nil {
				continue
			}
			if err := each(m.Data); err != nil {
				return err
			}
		}
	}
}

// ended reads how an exchange ended: a number that is zero or a negative error.
func ended(data []byte) error {
	if len(data) < 4 {
		return unix.EBADMSG
	}
	if code := int32(binary.NativeEndian.Uint32(data)); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
