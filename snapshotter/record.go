package snapshotter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/nodeagent/nodeagent/internal/atomicfile"
	"github.com/sirupsen/logrus"
)

// maxRecord bounds a record file: a name, labels and little else.
const maxRecord = 1 << 20

// record is what the file of that name holds, after eight hexadecimal digits
// of CRC-32C and a space.
type record struct {
	Version int               `json:"version"`
	Kind    string            `json:"kind"`
	Name    string            `json:"name"`
	Parent  string            `json:"parent,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Created time.Time         `json:"created"`
	Updated time.Time         `json:"updated"`
	Bytes   int64             `json:"bytes,omitempty"`
	Inodes  int64             `json:"inodes,omitempty"`
	Attr    dirAttr           `json:"attr"`
	// Image says that the files are in an EROFS image.
	Image  bool   `json:"image,omitempty"`
	Verity string `json:"verity,omitempty"`
}

const recordVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// write puts the record of s, sync saying whether to wait for the disk. s is
// a copy or busy.
func (o *Overlay) write(s *snapshot, sync bool) error {
	data, err := encode(s)
	if err != nil {
		return err
	}
	path := filepath.Join(o.dir(s.id), recordName)
	if sync {
		return atomicfile.WriteSync(path, data, 0o600)
	}
	return atomicfile.Write(path, data, 0o600)
}

func encode(s *snapshot) ([]byte, error) {
	body, err := json.Marshal(record{
		Version: recordVersion,
		Kind:    s.info.Kind.String(),
		Name:    s.info.Name,
		Parent:  s.info.Parent,
		Labels:  s.info.Labels,
		Created: s.info.Created,
		Updated: s.info.Updated,
		Bytes:   s.usage.Size,
		Inodes:  s.usage.Inodes,
		Attr:    s.attr,
		Image:   s.image,
		Verity:  s.verity,
	})
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(body, castagnoli), body), nil
}

func decode(data []byte) (*snapshot, error) {
	sum, body, ok := bytes.Cut(bytes.TrimSuffix(data, []byte("\n")), []byte(" "))
	if !ok || string(sum) != fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli)) {
		return nil, fmt.Errorf("wrong checksum")
	}
	var r record
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	kind := snapshots.ParseKind(r.Kind)
	if r.Version != recordVersion || kind == snapshots.KindUnknown || r.Name == "" {
		return nil, fmt.Errorf("version %d, kind %q, name %q", r.Version, r.Kind, r.Name)
	}
	return &snapshot{
		info: snapshots.Info{
			Kind: kind, Name: r.Name, Parent: r.Parent, Labels: r.Labels,
			Created: r.Created, Updated: r.Updated,
		},
		usage:  snapshots.Usage{Size: r.Bytes, Inodes: r.Inodes},
		attr:   r.Attr,
		image:  r.Image,
		verity: r.Verity,
	}, nil
}

// load fills the index and returns the IDs of directories that hold no
// snapshot. It runs before anybody else knows of o.
func (o *Overlay) load() (garbage []uint64, err error) {
	entries, err := os.ReadDir(o.root)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		id, err := strconv.ParseUint(e.Name(), 10, 64)
		if err != nil {
			continue
		}
		o.nextID = max(o.nextID, id+1)
		s, err := o.read(id)
		if errors.Is(err, fs.ErrNotExist) {
			// As a pull leaves it that was killed.
			logrus.WithField("directory", o.dir(id)).Debug("dropping a snapshot that was being made")
			garbage = append(garbage, id)
			continue
		}
		var unreadable *fs.PathError
		if errors.As(err, &unreadable) {
			// It says nothing about what is there, which may be a container's.
			logrus.WithError(err).Warn("leaving out a snapshot whose record cannot be read")
			continue
		}
		if err != nil {
			logrus.WithError(err).WithField("directory", o.dir(id)).Warn("dropping a half-made snapshot")
			garbage = append(garbage, id)
			continue
		}
		if other, ok := o.byName[s.info.Name]; ok {
			// Cannot happen by a kill; the older one was there first.
			logrus.WithField("snapshot", s.info.Name).Warn("dropping the second snapshot of one name")
			garbage = append(garbage, max(other.id, id))
			if other.id < id {
				continue
			}
		}
		o.byName[s.info.Name] = s
	}
	o.nextID = max(o.nextID, o.lastTrash()+1)
	o.link()
	return garbage, nil
}

// lastTrash is the highest ID that waits for deletion: its name must not come
// into the trash a second time.
func (o *Overlay) lastTrash() (last uint64) {
	entries, err := os.ReadDir(filepath.Join(o.root, trashName))
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if id, err := strconv.ParseUint(e.Name(), 10, 64); err == nil {
			last = max(last, id)
		}
	}
	return last
}

func (o *Overlay) read(id uint64) (*snapshot, error) {
	data, err := atomicfile.Read(filepath.Join(o.dir(id), recordName), maxRecord)
	if err != nil {
		return nil, err
	}
	s, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("read snapshot record %d: %w", id, err)
	}
	s.id = id
	return s, nil
}

// link connects snapshots with their parents. One whose parent is lost stays,
// for a container may be running on it; it cannot be mounted again.
func (o *Overlay) link() {
	for _, s := range o.byName {
		if s.info.Parent == "" {
			continue
		}
		p, ok := o.byName[s.info.Parent]
		if !ok || p.info.Kind != snapshots.KindCommitted {
			logrus.WithField("snapshot", s.info.Name).Warnf("its parent %s is lost", s.info.Parent)
			continue
		}
		s.parent = p
		p.children++
	}
	for _, s := range o.byName {
		if s.info.Kind != snapshots.KindCommitted {
			s.use(1)
		}
	}
}
