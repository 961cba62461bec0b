package nodeapi

import (
	"sync"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// maxNormals bounds the references whose full form is remembered.
const maxNormals = 4096

// normals remembers full forms: many containers have the same image, and to
// parse a reference takes longer than all else that a list tells of one.
type normals struct {
	mu    sync.Mutex // guards known
	known map[string]string
}

// of is normalRef.
func (n *normals) of(ref string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	full, ok := n.known[ref]
	if ok {
		return full
	}
	if n.known == nil || len(n.known) >= maxNormals {
		n.known = map[string]string{}
	}
	full = normalRef(ref)
	n.known[ref] = full
	return full
}

// normalRef is a reference in its full form, or itself when it does not parse.
func normalRef(ref string) string {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return ref
	}
	return named.String()
}

// referenceError words an error about a reference that does not parse as docker
// does, and leaves any other as it is.
func referenceError(ref string, err error) error {
	if _, wrong := reference.ParseAnyReference(ref); wrong != nil && errdefs.IsInvalidArgument(err) {
		return failf(errdefs.ErrInvalidArgument, "%v", wrong)
	}
	return err
}

// withDefaultTag is a reference in its short form with a tag, as docker says
// it, or itself when it does not parse.
func withDefaultTag(ref string) string {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return ref
	}
	return reference.FamiliarString(named)
}
