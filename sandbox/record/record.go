// Package record keeps one file for each object: a header line with a
// version, a length and a checksum, and JSON.
//
//	nodeagent-record pod 1 crc32c=1a2b3c4d len=1234
//	{…}
//
// A record is replaced by rename and not synced to the disk: fsync would cost
// each pod as much as all its other system calls together, and a record that
// a power cut damaged is noticed by its checksum. What it named is then found
// as garbage, for the processes and mounts of before the cut are gone anyway.
package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/atomicfile"
)

// MaxSize bounds a record's file in bytes. CRI requests are at most 16 MiB,
// and base64 makes 4 bytes of 3.
const MaxSize = 32 << 20

// ErrCorrupt is the kind of error for a record whose content cannot be used.
var ErrCorrupt = errors.New("corrupt record")

// magic begins every record.
const magic = "nodeagent-record"

// suffix is that of the files' names.
const suffix = ".json"

var table = crc32.MakeTable(crc32.Castagnoli)

// Encode gives a record's file content.
func Encode(kind string, version int, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s record: %w", kind, err)
	}
	var b bytes.Buffer
	b.Grow(len(body) + 80)
	fmt.Fprintf(&b, "%s %s %d crc32c=%08x len=%d\n", magic, kind, version, crc32.Checksum(body, table), len(body))
	b.Write(body)
	return b.Bytes(), nil
}

// Decode reads what Encode gave into v. Anything else, and a version newer
// than version, is ErrCorrupt.
func Decode(kind string, version int, data []byte, v any) error {
	corrupt := func(format string, args ...any) error {
		return fmt.Errorf("%s record: %s: %w", kind, fmt.Sprintf(format, args...), ErrCorrupt)
	}
	header, body, ok := bytes.Cut(data, []byte("\n"))
	if !ok || len(header) > 200 {
		return corrupt("no header")
	}
	var gotKind string
	var gotVersion, length int
	var sum uint32
	n, err := fmt.Sscanf(string(header), magic+" %s %d crc32c=%08x len=%d", &gotKind, &gotVersion, &sum, &length)
	if err != nil || n != 4 {
		return corrupt("bad header")
	}
	switch {
	case gotKind != kind:
		return corrupt("is of kind %q", gotKind)
	case gotVersion < 1 || gotVersion > version:
		return corrupt("version %d, this program knows up to %d", gotVersion, version)
	case length != len(body):
		return corrupt("%d bytes in place of %d", len(body), length)
	case crc32.Checksum(body, table) != sum:
		return corrupt("checksum does not match")
	}
	if err := json.Unmarshal(body, v); err != nil {
		return corrupt("%v", err)
	}
	return nil
}

// Store is a folder of records of one kind.
type Store struct {
	dir, kind string
	version   int
}

// Open makes the folder, of mode 0700, when it is missing, and removes what
// killed writers left.
func Open(dir, kind string, version int) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open %s records: %w", kind, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open %s records: %w", kind, err)
	}
	for _, e := range entries {
		if atomicfile.IsTemp(e.Name()) {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	return &Store{dir: dir, kind: kind, version: version}, nil
}

func (s *Store) path(id string) string { return filepath.Join(s.dir, id+suffix) }

// Put writes the record of id, in place of any before. One that would be too
// large to be read again is errdefs.ErrResourceExhausted.
func (s *Store) Put(id string, v any) error {
	data, err := s.encode(v)
	if err != nil {
		return err
	}
	return atomicfile.Write(s.path(id), data, 0o600)
}

func (s *Store) encode(v any) ([]byte, error) {
	data, err := Encode(s.kind, s.version, v)
	if err == nil && len(data) > MaxSize {
		return nil, fmt.Errorf("%s record of %d bytes is larger than %d: %w", s.kind, len(data), MaxSize, errdefs.ErrResourceExhausted)
	}
	return data, err
}

// PutSync is Put that a power cut does not undo.
func (s *Store) PutSync(id string, v any) error {
	data, err := s.encode(v)
	if err != nil {
		return err
	}
	return atomicfile.WriteSync(s.path(id), data, 0o600)
}

// Get reads the record of id into v; the error's kind is os.ErrNotExist when
// there is none and ErrCorrupt when it cannot be used.
func (s *Store) Get(id string, v any) error {
	data, err := atomicfile.Read(s.path(id), MaxSize)
	if err != nil {
		return err
	}
	return Decode(s.kind, s.version, data, v)
}

// Delete removes the record of id; none is no error.
func (s *Store) Delete(id string) error {
	err := os.Remove(s.path(id))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete %s record: %w", s.kind, err)
	}
	return nil
}

// IDs lists all records.
func (s *Store) IDs() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list %s records: %w", s.kind, err)
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), suffix); ok && !atomicfile.IsTemp(e.Name()) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// SetAside renames the record of id, so that it is no longer listed but can
// be looked at, and says what it is called now.
func (s *Store) SetAside(id string) (string, error) {
	aside := s.path(id) + ".corrupt-" + time.Now().UTC().Format("20060102T150405.000000000")
	if err := os.Rename(s.path(id), aside); err != nil {
		return "", fmt.Errorf("set %s record aside: %w", s.kind, err)
	}
	return aside, nil
}
