package nodeapi

import "fmt"

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
