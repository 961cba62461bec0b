package erofs

import (
	"slices"
	"testing"

	"github.com/containerd/errdefs"
)

func TestSums(t *testing.T) {
	s := &Sums{Size: 2*segmentSize + 5, Segments: []uint32{1, 2, 3}}
	got, err := DecodeSums(s.Encode())
	if err != nil || got.Size != s.Size || !slices.Equal(got.Segments, s.Segments) {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range s.Encode() {
		data := s.Encode()
		data[n] ^= 1
		if _, err := DecodeSums(data); !errdefs.IsDataLoss(err) {
			t.Errorf("byte %d changed: %v", n, err)
		}
		if _, err := DecodeSums(data[:n]); !errdefs.IsDataLoss(err) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
}

func FuzzSums(f *testing.F) {
	f.Add((&Sums{Size: 5, Segments: []uint32{1}}).Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeSums(data)
		if err != nil && !errdefs.IsDataLoss(err) {
			t.Error(err)
		}
		if err == nil && int64(len(s.Segments)) != (s.Size+segmentSize-1)/segmentSize {
			t.Errorf("%+v", s)
		}
	})
}
