package erofs

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// Attr is what an inode has beside its content.
type Attr struct {
	// Mode is st_mode, with the type.
	Mode     uint32
	UID, GID uint32
	Mtime    time.Time
	// Xattrs are by full name.
	Xattrs map[string]string
}

// inode is one that is being written.
type inode struct {
	attr   Attr
	layout uint16
	size   int64
	// where is the union i_u: first block, device, or chunk format.
	where uint32
	nlink uint32
	ino   uint32
	// xattrs are encoded.
	xattrs []byte
}

// encode appends the inode and its xattrs.
func (n *inode) encode(buf []byte) []byte {
	le := binary.LittleEndian
	var b [inodeSize]byte
	le.PutUint16(b[0:], 1|n.layout<<1)
	le.PutUint16(b[2:], xattrCount(n.xattrs))
	le.PutUint16(b[4:], uint16(n.attr.Mode))
	le.PutUint64(b[8:], uint64(n.size))
	le.PutUint32(b[16:], n.where)
	le.PutUint32(b[20:], n.ino)
	le.PutUint32(b[24:], n.attr.UID)
	le.PutUint32(b[28:], n.attr.GID)
	le.PutUint64(b[32:], uint64(n.attr.Mtime.Unix()))
	le.PutUint32(b[40:], uint32(n.attr.Mtime.Nanosecond()))
	le.PutUint32(b[nlinkOffset:], n.nlink)
	return append(append(buf, b[:]...), n.xattrs...)
}

// Offsets within an inode.
const (
	modeOffset  = 4
	uidOffset   = 24
	nlinkOffset = 44
)

// xattrPrefixes are the kinds of names that have a number.
var xattrPrefixes = []struct {
	prefix string
	index  byte
}{
	{"user.", 1}, {"trusted.", 4}, {"security.", 6},
}

// xattrHeader begins the xattrs of an inode.
const xattrHeader = 12

// xattrCount is i_xattr_icount.
func xattrCount(encoded []byte) uint16 {
	if len(encoded) == 0 {
		return 0
	}
	return uint16((len(encoded)-xattrHeader)/4 + 1)
}

// encodeXattrs writes xattrs in the order of their names. None are nil.
func encodeXattrs(xattrs map[string]string) ([]byte, error) {
	if len(xattrs) == 0 {
		return nil, nil
	}
	buf := make([]byte, xattrHeader)
	for _, name := range slices.Sorted(maps.Keys(xattrs)) {
		value := xattrs[name]
		index, rest := byte(0), ""
		for _, p := range xattrPrefixes {
			if suffix, ok := strings.CutPrefix(name, p.prefix); ok {
				index, rest = p.index, suffix
			}
		}
		if index == 0 || rest == "" || len(rest) > 255 || len(value) > 65535 {
			return nil, fmt.Errorf("xattr %.40q of %d bytes: %w", name, len(value), errdefs.ErrInvalidArgument)
		}
		buf = append(buf, byte(len(rest)), index)
		buf = binary.LittleEndian.AppendUint16(buf, uint16(len(value)))
		buf = append(append(buf, rest...), value...)
		for len(buf)%4 != 0 {
			buf = append(buf, 0)
		}
	}
	if (len(buf)-xattrHeader)/4+1 > 65535 {
		return nil, fmt.Errorf("xattrs of %d bytes: %w", len(buf), errdefs.ErrInvalidArgument)
	}
	return buf, nil
}

// Device encodes a device number as EROFS has it.
func Device(major, minor uint32) uint32 {
	return minor&0xff | major<<8 | (minor&^0xff)<<12
}
