package execinit

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// What would be cut short in C is refused.
func TestCheck(t *testing.T) {
	for name, r := range map[string]Request{
		"no arguments":   {},
		"empty program":  {Args: []string{""}},
		"NUL in args":    {Args: []string{"a", "b\x00c"}},
		"NUL in env":     {Args: []string{"a"}, Env: []string{"A=\x00"}},
		"NUL in dir":     {Args: []string{"a"}, Dir: "/\x00"},
		"empty filter":   {Args: []string{"a"}, Filters: []Filter{{}}},
		"endless filter": {Args: []string{"a"}, Filters: []Filter{{Instructions: make([]unix.SockFilter, maxFilter+1)}}},
	} {
		var failed *Error
		if _, err := r.file(); !errors.As(err, &failed) || failed.Step != StepRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A name with a slash is the file; others are looked for in PATH, where what is relative counts for nothing.
func TestPrograms(t *testing.T) {
	for name, one := range map[string]struct {
		program, path string
		want          []string
	}{
		"absolute":      {"/bin/x", "/usr/bin", []string{"/bin/x"}},
		"relative":      {"./x", "/usr/bin", []string{"./x"}},
		"searched":      {"x", "/a:/b/", []string{"/a/x", "/b/x"}},
		"relative PATH": {"x", ":.:b:/c", []string{"/c/x"}},
		"no PATH":       {"x", "", nil},
	} {
		r := Request{Args: []string{one.program}, Env: []string{"PATH=" + one.path}}
		if got, _ := r.programs(); !slices.Equal(got, one.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// Each step has words, and those that the request is to blame for say so.
func TestErrorWords(t *testing.T) {
	seen := map[string]bool{}
	for step := StepRequest; step <= StepExecute; step++ {
		e := &Error{Step: step, Err: unix.EPERM, Program: "p", Dir: "d"}
		if seen[e.Error()] || e.Error() == "" || e.Error() == "step 7: operation not permitted" {
			t.Errorf("step %d: %q", step, e)
		}
		seen[e.Error()] = true
		if e.Requested() != (step >= StepFolder) {
			t.Errorf("step %d: requested %v", step, e.Requested())
		}
	}
}
