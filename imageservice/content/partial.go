package content

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

const (
	// markSize is how much of a blob one mark stands for: as much is
	// fetched again at most for each connection that broke off.
	markSize = 1 << 20
	// segmentSize is how much of a blob one connection takes on at a time.
	// It is a multiple of markSize.
	segmentSize = 8 << 20
	// keepPartial is how long what arrived of a blob is kept for a pull
	// that is tried again.
	keepPartial = 24 * time.Hour

	partSuffix  = ".part"
	marksSuffix = ".marks"
)

// partial is a blob that is arriving: the file, and in another file a mark for
// each piece that was written, so that a later process can go on. Neither is
// synced: what a power cut tore is found when the whole blob is verified.
type partial struct {
	desc ocispec.Descriptor
	f    *os.File
	// marks is nil for a blob too small for it.
	marks    *os.File
	segments []segment
	// front is the first segment that is not whole.
	front int
	// arrived counts the bytes of all segments, resumed those an earlier
	// transfer left.
	arrived, resumed int64
}

// segment is a part of a blob that one connection fetches.
type segment struct {
	start, end int64
	// pos is up to where it has arrived.
	pos   int64
	taken bool
}

func (s *Store) partPath(d digest.Digest) string {
	return filepath.Join(s.ingestDir(), d.Algorithm().String()+"-"+d.Encoded()+partSuffix)
}

func (s *Store) marksPath(d digest.Digest) string {
	return filepath.Join(s.ingestDir(), d.Algorithm().String()+"-"+d.Encoded()+marksSuffix)
}

// openPartial opens what is there of a blob, or makes an empty file for it.
func (s *Store) openPartial(desc ocispec.Descriptor) (*partial, error) {
	p := &partial{desc: desc}
	for start := int64(0); start < desc.Size; start += segmentSize {
		p.segments = append(p.segments, segment{start: start, pos: start, end: min(start+segmentSize, desc.Size)})
	}
	small := desc.Size <= markSize
	flags := unix.O_RDWR | unix.O_CREAT
	if small || !p.resume(s.marksPath(desc.Digest)) {
		flags |= unix.O_TRUNC
	}
	var err error
	if p.f, err = openFile(s.partPath(desc.Digest), flags, 0o600); err != nil || small {
		return p, err
	}
	if p.marks, err = openFile(s.marksPath(desc.Digest), flags, 0o600); err != nil {
		p.f.Close()
		return nil, err
	}
	if flags&os.O_TRUNC != 0 {
		_, err = p.marks.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(desc.Size)), 0)
	}
	return p, err
}

// openFile opens a file that is nothing else. os.OpenFile makes sure, by five
// system calls more.
func openFile(path string, flags int, perm uint32) (*os.File, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, perm)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		return os.NewFile(uintptr(fd), path), nil
	}
}

// marksHeader is the blob's size, before the marks of a byte each.
const marksHeader = 8

// resume takes the marks of an earlier transfer; false when there are none to
// go by.
func (p *partial) resume(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	marks := make([]byte, marksHeader+(p.desc.Size+markSize-1)/markSize)
	n, _ := f.ReadAt(marks, 0)
	if n < marksHeader || binary.LittleEndian.Uint64(marks) != uint64(p.desc.Size) {
		return false
	}
	for i := range p.segments {
		sg := &p.segments[i]
		for sg.pos < sg.end && marks[marksHeader+sg.pos/markSize] == 1 {
			sg.pos = min(sg.pos+markSize, sg.end)
		}
		p.arrived += sg.pos - sg.start
	}
	p.resumed = p.arrived
	return true
}

// write puts bytes where a segment has come to. It may be called for different
// segments at once; what it changes is told by wrote.
func (p *partial) write(data []byte, at int64) error {
	if _, err := p.f.WriteAt(data, at); err != nil {
		return err
	}
	end := at + int64(len(data))
	if p.marks == nil {
		return nil
	}
	if end%segmentSize == 0 || end == p.desc.Size {
		// Its way to the disk begins, so that the sync in the end does not
		// wait for all of it. It is advice: the sync is what counts.
		from := (end - 1) / segmentSize * segmentSize
		_ = unix.SyncFileRange(int(p.f.Fd()), from, end-from, unix.SYNC_FILE_RANGE_WRITE)
	}
	first, last := at/markSize, end/markSize
	if end == p.desc.Size {
		last = (end + markSize - 1) / markSize
	}
	for ; first < last; first++ {
		if _, err := p.marks.WriteAt([]byte{1}, marksHeader+first); err != nil {
			return err
		}
	}
	return nil
}

// wrote notes n more bytes of a segment. The transfer's mutex is held, as for
// all that follow.
func (p *partial) wrote(i int, n int64) {
	p.segments[i].pos += n
	p.arrived += n
}

// prefix is up to where the blob is there without a gap.
func (p *partial) prefix() int64 {
	for p.front < len(p.segments) && p.segments[p.front].pos == p.segments[p.front].end {
		p.front++
	}
	if p.front == len(p.segments) {
		return p.desc.Size
	}
	return p.segments[p.front].pos
}

// take finds the first segment from an index on that nobody fetches.
func (p *partial) take(from int) (int, bool) {
	for i := max(from, p.front); i < len(p.segments); i++ {
		if sg := &p.segments[i]; !sg.taken && sg.pos < sg.end {
			sg.taken = true
			return i, true
		}
	}
	return 0, false
}

// giveBack lets all segments be taken again.
func (p *partial) giveBack() {
	for i := range p.segments {
		p.segments[i].taken = false
	}
}

// close closes the files.
func (p *partial) close() {
	p.f.Close()
	if p.marks != nil {
		p.marks.Close()
	}
}

// dropPartial removes what is there of a blob.
func (s *Store) dropPartial(d digest.Digest) {
	_ = os.Remove(s.marksPath(d))
	_ = os.Remove(s.partPath(d))
}

// settle removes what is not worth keeping of a transfer that broke off: too
// little has arrived.
func (s *Store) settle(p *partial) {
	if p.marks == nil || p.arrived < markSize {
		s.dropPartial(p.desc.Digest)
	}
}

// dropPartials removes what transfers that broke off left longer ago than
// age, and returns how many bytes that was. It may run while others arrive.
func (s *Store) dropPartials(age time.Duration) (int64, error) {
	entries, err := os.ReadDir(s.ingestDir())
	if err != nil {
		return 0, fmt.Errorf("drop unfinished blobs: %w", err)
	}
	var dropped int64
	for _, e := range entries {
		hex, isPart := strings.CutSuffix(e.Name(), partSuffix)
		info, err := e.Info()
		if !isPart || err != nil || time.Since(info.ModTime()) < age {
			continue
		}
		d := digest.Digest(strings.Replace(hex, "-", ":", 1))
		if s.dropIdle(d) {
			dropped += info.Size()
		}
	}
	return dropped, nil
}

// DropStale removes what transfers that broke off left a day ago.
func (s *Store) DropStale() error {
	_, err := s.dropPartials(keepPartial)
	return err
}

// dropIdle drops what is there of a blob that does not arrive now.
func (s *Store) dropIdle(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.Validate() != nil || s.arriving[d] {
		return false
	}
	s.dropPartial(d)
	return true
}

// clearIngest removes what no transfer can go on with.
func (s *Store) clearIngest() error {
	entries, err := os.ReadDir(s.ingestDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
	}
	for name := range names {
		part, isPart := strings.CutSuffix(name, partSuffix)
		marks, isMarks := strings.CutSuffix(name, marksSuffix)
		if isPart && names[part+marksSuffix] || isMarks && names[marks+partSuffix] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.ingestDir(), name)); err != nil {
			return err
		}
	}
	return nil
}

// Demote makes a whole blob what has arrived of it: it is no more in the store,
// but a Fetch finds it on the disk, verifies it, and has it back without the
// network. It is for blobs that a pull brought which then broke off.
func (s *Store) Demote(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	size, ok := s.blobs[d]
	if !ok || s.arriving[d] {
		return nil
	}
	if size <= markSize {
		return s.deleteLocked(d)
	}
	marks := make([]byte, marksHeader+(size+markSize-1)/markSize)
	binary.LittleEndian.PutUint64(marks, uint64(size))
	for i := range marks[marksHeader:] {
		marks[marksHeader+i] = 1
	}
	if err := os.WriteFile(s.marksPath(d), marks, 0o600); err != nil {
		return fmt.Errorf("demote blob: %w", err)
	}
	if err := os.Rename(s.path(d), s.partPath(d)); err != nil {
		return fmt.Errorf("demote blob: %w", err)
	}
	delete(s.blobs, d)
	return nil
}
