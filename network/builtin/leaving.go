package builtin

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// leaving are links that are down for good, and wait to be deleted. Deleting
// one takes the kernel tens of milliseconds, nearly all of them waiting for
// everybody to have stopped using it; deleting many at once takes no longer.
// So DEL takes a link down, which is what its pod's address may be given to
// another pod after, and marks it with a group; Reap deletes the group.
type leaving struct {
	// group is a number that nobody else's links have.
	group uint32

	// reaping is held by who deletes the group: it forgets as many links of
	// each owner as it saw before.
	reaping sync.Mutex

	mu sync.Mutex
	// links are the indexes of each owner's links.
	links map[string][]int
}

func newLeaving() *leaving {
	var number [4]byte
	rand.Read(number[:])
	// Zero is the group of all links that are in no other.
	return &leaving{group: binary.NativeEndian.Uint32(number[:])>>1 | 1<<20, links: map[string][]int{}}
}

// add takes a link down and notes that it is to be deleted.
func (l *leaving) add(h *netlink.Handle, owner string, link netlink.Link) error {
	name := link.Attrs().Name
	if err := h.LinkSetDown(link); err != nil {
		return fmt.Errorf("take %s down: %w", name, err)
	}
	if err := h.LinkSetGroup(link, int(l.group)); err != nil {
		return fmt.Errorf("mark %s as leaving: %w", name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.links[owner] = append(l.links[owner], link.Attrs().Index)
	return nil
}

// Leaving reports whether DEL left links of an owner to Reap.
func (p *Plugins) Leaving(owner string) bool {
	p.leaving.mu.Lock()
	defer p.leaving.mu.Unlock()
	return len(p.leaving.links[owner]) > 0
}

// Reap deletes the links that DEL left. A nil error means that all are gone
// that were left before the call; an error, that it is to be called again.
// Calls wait for each other.
func (p *Plugins) Reap() error {
	l := p.leaving
	l.reaping.Lock()
	defer l.reaping.Unlock()
	l.mu.Lock()
	batch := map[string]int{}
	for owner, links := range l.links {
		batch[owner] = len(links)
	}
	l.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	if err := deleteGroup(l.group); err != nil {
		return fmt.Errorf("delete %d pods' links: %w", len(batch), err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for owner, count := range batch {
		if l.links[owner] = l.links[owner][count:]; len(l.links[owner]) == 0 {
			delete(l.links, owner)
		}
	}
	return nil
}

// deleteGroup deletes all links of a group, with their peers; there may be
// none.
func deleteGroup(group uint32) error {
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
