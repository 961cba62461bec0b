package nodeapi

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// failure is an error whose text is all a person reads, while its kind
// decides the gRPC code.
type failure struct {
	text string
	kind error
}

// failf makes a failure of one of the kinds of containerd/errdefs.
func failf(kind error, format string, args ...any) error {
	return &failure{text: fmt.Sprintf(format, args...), kind: kind}
}

// Error returns the text for a person.
func (f *failure) Error() string { return f.text }

// Unwrap returns the kind.
func (f *failure) Unwrap() error { return f.kind }

// said is an error of a mechanism in the words a person reads: without the
// name of its kind at the end, which it keeps.
func said(err error) error {
	for _, kind := range []error{
		errdefs.ErrInvalidArgument, errdefs.ErrNotFound, errdefs.ErrAlreadyExists, errdefs.ErrFailedPrecondition,
	} {
		if errors.Is(err, kind) {
			return failf(kind, "%s", strings.TrimSuffix(err.Error(), ": "+kind.Error()))
		}
	}
	return err
}
