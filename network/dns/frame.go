package dns

import (
	"encoding/binary"
	"fmt"
	"io"
)

// readFrame reads a message with its length before it (RFC 1035, 4.2.2).
func readFrame(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint16(length[:])
	if n > maxQuery {
		return nil, fmt.Errorf("question of %d bytes", n)
	}
	message := make([]byte, n)
	_, err := io.ReadFull(r, message)
	return message, err
}

// writeFrame writes a message with its length before it.
func writeFrame(w io.Writer, message []byte) error {
	frame := binary.BigEndian.AppendUint16(make([]byte, 0, len(message)+2), uint16(len(message)))
	_, err := w.Write(append(frame, message...))
	return err
}
