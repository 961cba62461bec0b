package network

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sctpInit is an association's first packet (RFC 9260).
func sctpInit(from, to uint16) []byte {
	p := make([]byte, 32)
	binary.BigEndian.PutUint16(p[0:], from)
	binary.BigEndian.PutUint16(p[2:], to)
	p[12] = 1 // the chunk INIT, of 20 bytes
	binary.BigEndian.PutUint16(p[14:], 20)
	binary.BigEndian.PutUint32(p[16:], 0x12345678)
	binary.BigEndian.PutUint32(p[20:], 65536)
	binary.BigEndian.PutUint16(p[24:], 10)
	binary.BigEndian.PutUint16(p[26:], 10)
	binary.LittleEndian.PutUint32(p[8:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	return p
}

// TestSCTP: an association to a published port is led to the pod, whole. The
// packets are made by hand, since many kernels speak no SCTP themselves.
func TestSCTP(t *testing.T) {
	ways(t, func(t *testing.T, cfg Config) {
		m := newManager(t, cfg)
		a := newPod(t)
		a.Ports = []PortMapping{{Protocol: SCTP, HostPort: 9090, ContainerPort: 90}}
		mustAdd(t, m, a)
		socket := func(p place) (fd int) {
			err := p.ns.Do(func() (err error) {
				fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(fd) })
			return fd
		}
		inside, out := socket(openPlace(t, "pod", a.NetNS)), socket(place{"outside", outside})
		if err := unix.SetsockoptTimeval(inside, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience / time.Second)}); err != nil {
			t.Fatal(err)
		}
		host := &unix.SockaddrInet4{Addr: netip.MustParseAddr("198.51.100.7").As4()}
		if err := unix.Sendto(out, sctpInit(4000, 9090), 0, host); err != nil {
			t.Fatal(err)
		}
		packet := make([]byte, 256)
		n, _, err := unix.Recvfrom(inside, packet, 0)
		if err != nil || n != 52 {
			t.Fatalf("the pod got %d bytes: %v", n, err)
		}
		got := packet[20:n]
		if from, to := binary.BigEndian.Uint16(got), binary.BigEndian.Uint16(got[2:]); from != 4000 || to != 90 {
			t.Errorf("from port %d to port %d", from, to)
		}
		sum := binary.LittleEndian.Uint32(got[8:])
		binary.LittleEndian.PutUint32(got[8:], 0)
		if want := crc32.Checksum(got, crc32.MakeTable(crc32.Castagnoli)); sum != want {
			t.Errorf("checksum %x, want %x", sum, want)
		}
		mustDel(t, m, a)
	})
}
