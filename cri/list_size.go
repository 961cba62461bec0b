package cri

import (
	"time"

	"google.golang.org/protobuf/proto"
)

const (
	// kubeletReads is the longest message that kubelet reads, in bytes.
	kubeletReads = 16 << 20
	// sizeWarnPause is between two warnings of long lists.
	sizeWarnPause = 10 * time.Minute
)

// noteSize warns of a list that has grown to half of what kubelet reads: once
// kubelet cannot read it, it can remove nothing any more.
func (s *Server) noteSize(method string, items int, list proto.Message) {
	size := proto.Size(list)
	if size < kubeletReads/2 {
		return
	}
	last, now := s.sizeWarned.Load(), time.Now().UnixNano()
	if now-last < int64(sizeWarnPause) && last != 0 || !s.sizeWarned.CompareAndSwap(last, now) {
		return
	}
	s.log.WithField("method", method).Warnf("the list of %d takes %d MiB; kubelet reads %d MiB, and nothing beyond", items, size>>20, kubeletReads>>20)
}
