package builtin

import (
	"math"
	"testing"

	"github.com/vishvananda/netlink"
)

// A slow link with the burst that kubelet's pods have would be given, by the bits
// that overflow, a bucket that no packet fits into.
func TestShaperDoesNotOverflow(t *testing.T) {
	link := &netlink.Dummy{}
	for _, rate := range []uint64{1e3, 1e6, 1e9, 1e15} {
		s := shaper(link, rate, math.MaxInt32)
		held := float64(s.Buffer) / netlink.TickInUsec() / float64(netlink.TIME_UNITS_PER_SEC) * float64(s.Rate)
		if want := float64(math.MaxInt32 / 8); held < want*0.9 && s.Buffer != math.MaxUint32 {
			t.Errorf("%d bit/s: a bucket of %.0f bytes, want %.0f", rate, held, want)
		}
		if s.Limit < math.MaxInt32/8 {
			t.Errorf("%d bit/s: a queue of %d bytes", rate, s.Limit)
		}
	}
	for _, conf := range []string{`{"ingressRate": 7, "ingressBurst": 8}`, `{"egressRate": 8}`} {
		if err := supportsBandwidth([]byte(conf)); err == nil {
			t.Errorf("%s is supported", conf)
		}
	}
}
