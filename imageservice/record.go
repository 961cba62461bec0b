package imageservice

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/internal/atomicfile"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
)

// record is one image, as its file has it after eight hexadecimal digits of
// CRC-32C and a space. It is changed by replacing it, never in place, so that
// who holds one may read it without a lock.
type record struct {
	Version int           `json:"version"`
	ID      digest.Digest `json:"id"`
	// Tags and Digests are normalised references, in the order they came.
	Tags    []string `json:"tags,omitempty"`
	Digests []string `json:"digests,omitempty"`
	// Manifest is the platform's; Blobs are all that belong to the image,
	// of which layers may be missing that were there in another form.
	Manifest digest.Digest   `json:"manifest"`
	Blobs    []digest.Digest `json:"blobs"`
	// DiffIDs are those of the layers, the lowest first.
	DiffIDs     []digest.Digest `json:"diffIDs,omitempty"`
	Size        int64           `json:"size"`
	ContentSize int64           `json:"contentSize"`
	PulledAt    time.Time       `json:"pulledAt"`
	Pinned      bool            `json:"pinned,omitempty"`
	// Snapshotters are the names of those that have the layers.
	Snapshotters []string `json:"snapshotters,omitempty"`
	// Removed says that it is kept only for containers made from it.
	Removed bool `json:"removed,omitempty"`

	// pinned says that the configuration pins it by one of its names.
	pinned bool
	// config is read from its blob.
	config *ocispec.Image
	// chainIDs are computed from DiffIDs.
	chainIDs []digest.Digest
}

const (
	recordVersion = 1
	// maxRecord bounds a record file.
	maxRecord = 8 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (r *record) encode() ([]byte, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(body, castagnoli), body), nil
}

func decodeRecord(data []byte) (*record, error) {
	sum, body, ok := bytes.Cut(bytes.TrimSuffix(data, []byte("\n")), []byte(" "))
	if !ok || string(sum) != fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli)) {
		return nil, fmt.Errorf("wrong checksum: %w", errdefs.ErrDataLoss)
	}
	r := new(record)
	if err := json.Unmarshal(body, r); err != nil {
		return nil, err
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("version %d: %w", r.Version, errdefs.ErrNotImplemented)
	}
	for _, d := range slices.Concat([]digest.Digest{r.ID, r.Manifest}, r.Blobs, r.DiffIDs) {
		if err := d.Validate(); err != nil {
			return nil, fmt.Errorf("digest %q: %w", d, err)
		}
	}
	r.chainIDs = chainIDs(r.DiffIDs)
	return r, nil
}

// chainIDs names each layer together with those below it.
func chainIDs(diffIDs []digest.Digest) []digest.Digest {
	return identity.ChainIDs(slices.Clone(diffIDs))
}

// image is what others get to see.
func (r *record) image() Image {
	img := Image{
		ID: r.ID.String(), Tags: slices.Clone(r.Tags), Digests: slices.Clone(r.Digests),
		Size: r.Size, ContentSize: r.ContentSize, Manifest: r.Manifest.String(),
		Config: r.config, Pinned: r.Pinned || r.pinned, PulledAt: r.PulledAt,
	}
	if n := len(r.chainIDs); n > 0 {
		img.ChainID = r.chainIDs[n-1].String()
	}
	return img
}

// clone is what a change starts from.
func (r *record) clone() *record {
	c := *r
	c.Tags, c.Digests, c.Blobs = slices.Clone(r.Tags), slices.Clone(r.Digests), slices.Clone(r.Blobs)
	c.Snapshotters = slices.Clone(r.Snapshotters)
	return &c
}

func (r *record) names() []string { return slices.Concat(r.Tags, r.Digests) }

func (s *Store) recordPath(id digest.Digest) string {
	return filepath.Join(s.recordDir(), id.Algorithm().String()+"-"+id.Encoded()+".json")
}

// write makes a record durable.
func (s *Store) write(r *record) error {
	data, err := r.encode()
	if err != nil {
		return err
	}
	return atomicfile.WriteSync(s.recordPath(r.ID), data, 0o600)
}

// load reads all records. An image that is not whole any more is dropped:
// pulling it again is better than listing what cannot run.
func (s *Store) load() error {
	entries, err := os.ReadDir(s.recordDir())
	if err != nil {
		return err
	}
	var records []*record
	for _, e := range entries {
		path := filepath.Join(s.recordDir(), e.Name())
		if atomicfile.IsTemp(e.Name()) {
			_ = os.Remove(path)
			continue
		}
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		r, err := s.readRecord(path)
		if err == nil {
			records = append(records, r)
			continue
		}
		logrus.WithError(err).WithField("file", path).Warn("dropping an image that is not whole")
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// Of two images with one name, which a kill between two writes leaves,
	// the later pull has it.
	slices.SortFunc(records, func(a, b *record) int { return a.PulledAt.Compare(b.PulledAt) })
	for _, r := range records {
		s.index(s.withoutNames(r.names(), r.ID), nil, r)
	}
	return nil
}

func (s *Store) readRecord(path string) (*record, error) {
	data, err := atomicfile.Read(path, maxRecord)
	if err != nil {
		return nil, err
	}
	r, err := decodeRecord(data)
	if err != nil {
		return nil, err
	}
	if path != s.recordPath(r.ID) {
		return nil, fmt.Errorf("it is the record of %s: %w", r.ID, errdefs.ErrDataLoss)
	}
	if _, ok := s.content.Size(r.Manifest); !ok {
		return nil, fmt.Errorf("manifest %s: %w", r.Manifest, errdefs.ErrNotFound)
	}
	raw, err := s.content.Read(r.ID, maxDocument)
	if err != nil {
		return nil, err
	}
	if r.config, err = parseConfig(raw); err != nil {
		return nil, err
	}
	return r, s.findLayers(r)
}

// findLayers notes which snapshotters have all layers of an image. With none
// of them its blobs must be there, from which layers are made when a container
// needs them.
func (s *Store) findLayers(r *record) error {
	if len(r.Snapshotters) == 0 {
		r.Snapshotters = []string{overlayName}
	}
	r.Snapshotters = slices.DeleteFunc(slices.Clone(r.Snapshotters), func(name string) bool {
		in, err := s.snapshotter(s.snapshotterName(name))
		return err != nil || !has(s.ctx, in, r.chainIDs)
	})
	if len(r.Snapshotters) > 0 {
		return nil
	}
	raw, err := s.content.Read(r.Manifest, maxDocument)
	if err != nil {
		return err
	}
	doc, err := parseDocument(raw, "")
	if err != nil {
		return err
	}
	for _, layer := range doc.Layers {
		if _, ok := s.content.Size(layer.Digest); !ok {
			return fmt.Errorf("layer %s: %w", layer.Digest, errdefs.ErrNotFound)
		}
	}
	return nil
}

// withoutNames returns copies of the images that have some of the names and
// are not the one called id, without them. mu is held, or nobody else knows s.
func (s *Store) withoutNames(names []string, id digest.Digest) []*record {
	changed := map[string]*record{}
	for _, name := range names {
		owner, ok := s.names[name]
		if !ok || owner == id.String() {
			continue
		}
		if changed[owner] == nil {
			changed[owner] = s.images[owner].clone()
		}
		c := changed[owner]
		is := func(n string) bool { return n == name }
		c.Tags, c.Digests = slices.DeleteFunc(c.Tags, is), slices.DeleteFunc(c.Digests, is)
	}
	list := make([]*record, 0, len(changed))
	for _, c := range changed {
		list = append(list, c)
	}
	return list
}

// index replaces images in memory: first those that lost names, then removed
// ones go, then added ones come. mu is held, or nobody else knows s.
func (s *Store) index(changed, removed []*record, added ...*record) {
	for _, r := range slices.Concat(changed, removed, added) {
		if old, ok := s.images[r.ID.String()]; ok {
			s.unindex(old)
		}
	}
	for _, r := range slices.Concat(changed, added) {
		id := r.ID.String()
		r.pinned = s.pins.match(r.names())
		s.images[id] = r
		for _, name := range r.names() {
			s.names[name] = id
		}
		retain(s.refs, r.Blobs, 1)
		retain(s.chains, r.chainIDs, 1)
	}
}

func (s *Store) unindex(r *record) {
	delete(s.images, r.ID.String())
	for _, name := range r.names() {
		if s.names[name] == r.ID.String() {
			delete(s.names, name)
		}
	}
	retain(s.refs, r.Blobs, -1)
	retain(s.chains, r.chainIDs, -1)
}

// retain adds n to the counts of digests.
func retain(counts map[digest.Digest]int, list []digest.Digest, n int) {
	for _, d := range list {
		if counts[d] += n; counts[d] == 0 {
			delete(counts, d)
		}
	}
}
