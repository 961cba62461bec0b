package nodeapi

import "github.com/distribution/reference"

// normalRef is a reference in its full form, or itself when it does not parse.
func normalRef(ref string) string {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return ref
	}
	return named.String()
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
