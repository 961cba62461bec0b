package namespace

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Link is a network interface with its counters.
type Link struct {
	Name     string
	Loopback bool
	// Rx and Tx are as the namespace the interface is in sees them.
	Rx, Tx Counters
}

// Counters count what passed an interface in one direction.
type Counters struct {
	Bytes, Packets, Errors, Dropped uint64
}

// dumpTimeout bounds the kernel's answer.
const dumpTimeout = 2 * time.Second

// Links lists the interfaces of the network namespace pinned at path. No
// thread enters it: the kernel answers for a namespace that the caller's has
// a number for (IFLA_TARGET_NETNSID, since kernel 4.20), and a number is given
// where there is none yet, as to a namespace that no veth leads to.
func Links(ctx context.Context, path string) ([]Link, error) {
	found, err := links(path)
	if err != nil {
		return nil, fmt.Errorf("list interfaces of %s: %w", path, err)
	}
	return found, ctx.Err()
}

func links(path string) ([]Link, error) {
	pin, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer pin.Close()
	r, err := dialRoute()
	if err != nil {
		return nil, err
	}
	defer r.close()
	id, err := r.number(int(pin.Fd()))
	if err != nil {
		return nil, err
	}
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(id))))
	var found []Link
	err = r.exchange(request, func(message []byte) error {
		link, err := parseLink(message)
		found = append(found, link)
		return err
	})
	return found, err
}

// number finds the caller's namespace's number for the one behind a
// descriptor, and has one given where there is none.
func (r *route) number(fd int) (int32, error) {
	id, err := r.askNumber(fd)
	if err != nil || id >= 0 {
		return id, err
	}
	request := nl.NewNetlinkRequest(unix.RTM_NEWNSID, unix.NLM_F_ACK)
	request.AddData(&rtgenmsg{})
	request.AddData(nl.NewRtAttr(unix.NETNSA_FD, nl.Uint32Attr(uint32(fd))))
	// NETNSA_NSID_NOT_ASSIGNED: the kernel chooses.
	request.AddData(nl.NewRtAttr(unix.NETNSA_NSID, nl.Uint32Attr(^uint32(0))))
	// Another reader may have been faster.
	failed := r.exchange(request, nil)
	if id, err = r.askNumber(fd); err == nil && id < 0 {
		err = fmt.Errorf("give the namespace a number: %w", failed)
	}
	return id, err
}

// askNumber gives the namespace's number, negative for none.
func (r *route) askNumber(fd int) (int32, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETNSID, unix.NLM_F_ACK)
	request.AddData(&rtgenmsg{})
	request.AddData(nl.NewRtAttr(unix.NETNSA_FD, nl.Uint32Attr(uint32(fd))))
	id := int32(-1)
	err := r.exchange(request, func(message []byte) error {
		if len(message) < rtgenmsgLen {
			return nil
		}
		attrs, err := nl.ParseRouteAttr(message[rtgenmsgLen:])
		for _, attr := range attrs {
			if attr.Attr.Type == unix.NETNSA_NSID && len(attr.Value) >= 4 {
				id = int32(binary.NativeEndian.Uint32(attr.Value))
			}
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("ask for the namespace's number: %w", err)
	}
	return id, nil
}

// rtgenmsgLen is that of struct rtgenmsg with its padding.
const rtgenmsgLen = unix.NLMSG_ALIGNTO

// rtgenmsg is struct rtgenmsg with family AF_UNSPEC.
type rtgenmsg struct{}

func (*rtgenmsg) Len() int { return rtgenmsgLen }

func (*rtgenmsg) Serialize() []byte { return make([]byte, rtgenmsgLen) }

// parseLink reads an RTM_NEWLINK message.
func parseLink(message []byte) (Link, error) {
	var link Link
	if len(message) < unix.SizeofIfInfomsg {
		return link, fmt.Errorf("message of %d bytes is too short: %w", len(message), unix.EBADMSG)
	}
	info := nl.DeserializeIfInfomsg(message)
	link.Loopback = info.Flags&unix.IFF_LOOPBACK != 0
	attrs, err := nl.ParseRouteAttr(message[info.Len():])
	if err != nil {
		return link, err
	}
	for _, attr := range attrs {
		switch attr.Attr.Type {
		case unix.IFLA_IFNAME:
			link.Name = unix.ByteSliceToString(attr.Value)
		case unix.IFLA_STATS64:
			if len(attr.Value) < 8*8 {
				return link, fmt.Errorf("counters of %d bytes are too short: %w", len(attr.Value), unix.EBADMSG)
			}
			// struct rtnl_link_stats64: received and sent take turns.
			figure := func(i int) uint64 { return binary.NativeEndian.Uint64(attr.Value[8*i:]) }
			link.Rx = Counters{Packets: figure(0), Bytes: figure(2), Errors: figure(4), Dropped: figure(6)}
			link.Tx = Counters{Packets: figure(1), Bytes: figure(3), Errors: figure(5), Dropped: figure(7)}
		}
	}
	return link, nil
}
