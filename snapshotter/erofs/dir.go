package erofs

import (
	"encoding/binary"
	"maps"
	"slices"
)

// Dir is a directory of an image being written.
type Dir struct {
	Attr    Attr
	Entries map[string]Entry

	// sorted, nid and layout are set by Finish.
	sorted []string
	nid    uint64
	xattrs []byte
	// offset is that of the inode; blocks is the first block of its content,
	// when that has blocks of its own.
	offset, blocks int64
	size           int64
}

// Entry is one name in a directory.
type Entry struct {
	// Type is one of the Type constants.
	Type uint8
	// Inode is what the writer gave, of all but directories.
	Inode uint64
	// Dir is the directory, of those.
	Dir *Dir
	// Target is where a symbolic link leads, for who looks paths up.
	Target string
}

// direntSize is that of an entry without its name.
const direntSize = 12

// names are those of a directory, which does not change any more, in the order
// in which they are written.
func (d *Dir) names() []string {
	if d.sorted == nil {
		d.sorted = append(slices.AppendSeq(make([]string, 0, len(d.Entries)+2), maps.Keys(d.Entries)), ".", "..")
		slices.Sort(d.sorted)
	}
	return d.sorted
}

// measure returns how many bytes the content takes.
func (d *Dir) measure(names []string) int64 {
	var size, used int64
	for _, name := range names {
		n := int64(direntSize + len(name))
		if used+n > blockSize {
			size, used = size+blockSize, 0
		}
		used += n
	}
	return size + used
}

// inline tells whether the content goes behind the inode.
func (d *Dir) inline() bool {
	return inodeSize+int64(len(d.xattrs))+d.size <= blockSize
}

// content is the directory as it is on the disk.
func (d *Dir) content(names []string, parent *Dir) []byte {
	buf := make([]byte, 0, d.size)
	for len(names) > 0 {
		n, used := 0, 0
		for n < len(names) && used+direntSize+len(names[n]) <= blockSize {
			used += direntSize + len(names[n])
			n++
		}
		if n < len(names) {
			start := len(buf)
			buf = d.block(buf, names[:n], parent)
			buf = append(buf, zeros[:blockSize-(len(buf)-start)]...)
		} else {
			buf = d.block(buf, names, parent)
		}
		names = names[n:]
	}
	return buf
}

func (d *Dir) block(buf []byte, names []string, parent *Dir) []byte {
	at := len(names) * direntSize
	for _, name := range names {
		nid, kind := d.entry(name, parent)
		buf = binary.LittleEndian.AppendUint64(buf, nid)
		buf = binary.LittleEndian.AppendUint16(buf, uint16(at))
		buf = append(buf, kind, 0)
		at += len(name)
	}
	for _, name := range names {
		buf = append(buf, name...)
	}
	return buf
}

func (d *Dir) entry(name string, parent *Dir) (nid uint64, kind uint8) {
	switch name {
	case ".":
		return d.nid, TypeDirectory
	case "..":
		return parent.nid, TypeDirectory
	}
	e := d.Entries[name]
	if e.Dir != nil {
		return e.Dir.nid, TypeDirectory
	}
	return e.Inode, e.Type
}

// links is the number of names a directory has.
func (d *Dir) links() uint32 {
	n := uint32(2)
	for _, e := range d.Entries {
		if e.Dir != nil {
			n++
		}
	}
	return n
}

// walk calls f for a directory and all below it, parents first.
func (d *Dir) walk(parent *Dir, f func(d, parent *Dir) error) error {
	if err := f(d, parent); err != nil {
		return err
	}
	for _, name := range d.names() {
		if sub := d.Entries[name].Dir; sub != nil {
			if err := sub.walk(d, f); err != nil {
				return err
			}
		}
	}
	return nil
}
