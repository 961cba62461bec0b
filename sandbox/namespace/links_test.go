package namespace

import (
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// The counters are those that the namespace itself sees.
func TestLinks(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	dir := filepath.Join(root(t), "ns")
	if _, err := Pin(t.Context(), Request{Dir: dir, Kinds: []Kind{Net}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Unpin(dir); err != nil {
			t.Error(err)
		}
	})
	pin := filepath.Join(dir, string(Net))
	links, err := Links(t.Context(), pin)
	if err != nil || len(links) != 1 || links[0].Name != "lo" || !links[0].Loopback {
		t.Fatalf("%v, %v", links, err)
	}
	pod, err := netns.GetFromPath(pin)
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "nastatslinks0", Flags: unix.IFF_UP}, PeerName: "eth7", PeerNamespace: netlink.NsFd(int(pod)),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(veth) })
	err = Run(t.Context(), pin, Net, func() error { return send(t, "eth7", 1000) })
	if err != nil {
		t.Fatal(err)
	}
	links, err = Links(t.Context(), pin)
	if err != nil || len(links) != 2 || links[1].Name != "eth7" || links[1].Loopback {
		t.Fatalf("%v, %v", links, err)
	}
	if l := links[1]; l.Tx.Packets < 1 || l.Tx.Bytes < 1000 || l.Rx.Bytes >= 1000 {
		t.Errorf("what was sent is not seen as sent: %+v", l)
	}
	if links, err := Links(t.Context(), filepath.Join(dir, "none")); err == nil {
		t.Error(links)
	}
}

// send sends a frame of some bytes from an interface of the thread's namespace.
func send(t *testing.T, name string, size int) error {
	t.Helper()
	host, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer host.Close()
	link, err := host.LinkByName(name)
	if err != nil {
		return err
	}
	if err := host.LinkSetUp(link); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, make([]byte, size), 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index})
}

func FuzzParseDevices(f *testing.F) {
	f.Add([]byte("Inter-| Receive\n face |bytes\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"))
	f.Add([]byte("eth0:18446744073709551615 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"))
	f.Add([]byte("eth0: 1 2"))
	f.Fuzz(func(t *testing.T, text []byte) {
		links, err := parseDevices(text)
		if err != nil && links != nil {
			t.Errorf("%v, %v", links, err)
		}
	})
}
