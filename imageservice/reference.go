package imageservice

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// maxReference bounds what is parsed as a reference.
const maxReference = 4096

// parseReference normalises a reference as docker does: docker.io/library
// and the tag latest are filled in, and a tag beside a digest is dropped.
func parseReference(ref string) (reference.Named, error) {
	if len(ref) > maxReference {
		return nil, fmt.Errorf("parse reference of %d bytes: too long: %w", len(ref), errdefs.ErrInvalidArgument)
	}
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return nil, fmt.Errorf("parse reference %q: %w: %w", ref, err, errdefs.ErrInvalidArgument)
	}
	return named, nil
}

// find looks an image up by ID, reference, or unique prefix of an ID, in this
// order. mu is held.
func (s *Store) find(ref string) (*record, error) {
	if ref == "" {
		return nil, fmt.Errorf("find image: empty reference: %w", errdefs.ErrInvalidArgument)
	}
	if r := s.images[ref]; r != nil && !r.Removed {
		return r, nil
	}
	if r := s.images["sha256:"+ref]; r != nil && !r.Removed {
		return r, nil
	}
	named, err := parseReference(ref)
	if err == nil {
		if r := s.images[s.names[named.String()]]; r != nil && !r.Removed {
			return r, nil
		}
	}
	if r, perr := s.findPrefix(ref); r != nil || perr != nil {
		return r, perr
	}
	if err != nil && !isHex(strings.TrimPrefix(ref, "sha256:")) {
		return nil, err
	}
	return nil, fmt.Errorf("image %s: %w", ref, errdefs.ErrNotFound)
}

// findPrefix finds the only image whose ID begins so. mu is held.
func (s *Store) findPrefix(ref string) (*record, error) {
	hex := strings.TrimPrefix(ref, "sha256:")
	if !isHex(hex) {
		return nil, nil
	}
	var found *record
	for _, r := range s.images {
		if r.Removed || !strings.HasPrefix(r.ID.Encoded(), hex) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("image %s: more than one begins so: %w", ref, errdefs.ErrInvalidArgument)
		}
		found = r
	}
	return found, nil
}

func isHex(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdef") == ""
}

// tagOf and digestOf are the names an image gets by being pulled.
func tagOf(ref reference.Named) []string {
	if _, ok := ref.(reference.Tagged); ok {
		return []string{ref.String()}
	}
	return nil
}

func digestOf(ref reference.Named, target digest.Digest) []string {
	return []string{reference.TrimNamed(ref).Name() + "@" + target.String()}
}
