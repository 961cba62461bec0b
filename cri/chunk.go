package cri

import (
	"google.golang.org/protobuf/proto"
)

// maxChunk is the size a streamed message is filled to, in bytes. One item may
// exceed it: kubelet bounds annotations far below what it reads.
const maxChunk = 1 << 20

// sendChunks sends all items, each once, in messages of at least one item.
func sendChunks[T proto.Message](items []T, send func([]T) error) error {
	start, size := 0, 0
	for i, item := range items {
		n := proto.Size(item)
		if i > start && size+n > maxChunk {
			if err := send(items[start:i]); err != nil {
				return err
			}
			start, size = i, 0
		}
		size += n
	}
	if start == len(items) {
		return nil
	}
	return send(items[start:])
}
