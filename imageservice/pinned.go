package imageservice

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// pins are the names of images that are never collected.
type pins struct {
	// exact are normalised names, prefixes and parts are of those with a star.
	exact           map[string]bool
	prefixes, parts []string
}

// parsePins reads names, as docker takes them, and patterns: "name*" for all
// that begin so, "*name*" for all that it is part of.
func parsePins(list []string) (pins, error) {
	p := pins{exact: map[string]bool{}}
	for _, one := range list {
		inner := strings.Trim(one, "*")
		switch {
		case inner == "" || strings.Contains(inner, "*"):
			return p, fmt.Errorf("pinned image %q: a star belongs to the end, or to both: %w", one, errdefs.ErrInvalidArgument)
		case one == "*"+inner+"*":
			p.parts = append(p.parts, inner)
		case one == inner+"*":
			p.prefixes = append(p.prefixes, inner)
		case one == inner:
			named, err := parseReference(one)
			if err != nil {
				return p, fmt.Errorf("pinned image %q: %w", one, err)
			}
			p.exact[named.String()] = true
		default:
			return p, fmt.Errorf("pinned image %q: a star belongs to the end, or to both: %w", one, errdefs.ErrInvalidArgument)
		}
	}
	return p, nil
}

// match tells whether an image of these normalised names is pinned. Patterns
// are compared with the short form of a name too.
func (p pins) match(names []string) bool {
	for _, name := range names {
		if p.exact[name] {
			return true
		}
		forms := []string{name}
		if named, err := reference.ParseNormalizedNamed(name); err == nil {
			forms = append(forms, reference.FamiliarString(named))
		}
		for _, form := range forms {
			if p.matchForm(form) {
				return true
			}
		}
	}
	return false
}

func (p pins) matchForm(name string) bool {
	for _, prefix := range p.prefixes {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	for _, part := range p.parts {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// CheckPinned fails with ErrInvalidArgument when a list of pinned images is not
// one.
func CheckPinned(list []string) error {
	_, err := parsePins(list)
	return err
}

// SetPinned changes which images are pinned.
func (s *Store) SetPinned(list []string) error {
	p, err := parsePins(list)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pins = p
	for id, r := range s.images {
		c := r.clone()
		c.pinned = p.match(c.names())
		s.images[id] = c
	}
	return nil
}
