package command

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxWindow is the most memory that zstd may ask for, in bytes; it is what its
// highest level without --long takes.
const maxWindow = 128 << 20

// compressions are those that docker takes archives in, by their first bytes.
// agent says that the agent takes them too.
var compressions = []struct {
	name, magic string
	agent       bool
	open        func(io.Reader) (io.Reader, error)
}{
	{"gzip", "\x1f\x8b", true, func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
	{"zstd", "\x28\xb5\x2f\xfd", true, func(r io.Reader) (io.Reader, error) {
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1))
		return z, err
	}},
	{"bzip2", "BZh", false, func(r io.Reader) (io.Reader, error) { return bzip2.NewReader(r), nil }},
	{"xz", "\xfd7zXZ\x00", false, func(r io.Reader) (io.Reader, error) { return xz.NewReader(r) }},
}

// Plain gives an archive without its compression, which its first bytes tell and no
// name does. It is done here, by nobody's rights but the person's: the agent
// runs no decoder that no image needs.
func Plain(r io.Reader) (io.Reader, error) { return plain(r, true) }

// ForImages gives an archive in a compression that images have, which the agent
// takes, or plain.
func ForImages(r io.Reader) (io.Reader, error) { return plain(r, false) }

func plain(r io.Reader, all bool) (io.Reader, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	magic, err := in.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	for _, c := range compressions {
		if !bytes.HasPrefix(magic, []byte(c.magic)) || c.agent && !all {
			continue
		}
		out, err := c.open(in)
		if err != nil {
			return nil, fmt.Errorf("decompress %s: %w", c.name, err)
		}
		return named{out, c.name}, nil
	}
	return in, nil
}

// named says in errors what was being decompressed.
type named struct {
	io.Reader
	name string
}

// Read reads what was compressed.
func (n named) Read(p []byte) (int, error) {
	count, err := n.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("decompress %s: %w", n.name, err)
	}
	return count, err
}
