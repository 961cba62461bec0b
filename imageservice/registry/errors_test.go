package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
)

// TestNoTimeLeft runs out of time at the second of two hosts.
func TestNoTimeLeft(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	try := &trial{what: "resolve"}
	if try.failed(t.Context(), &endpoint{host: docker.RegistryHost{Host: "mirror.test"}}, errdefs.ErrNotFound) {
		t.Error("given up at the first host")
	}
	<-ctx.Done()
	if !try.failed(ctx, &endpoint{host: docker.RegistryHost{Host: "registry.test"}}, ctx.Err()) {
		t.Error("not given up without time")
	}
	err := try.err(ctx)
	if !errdefs.IsUnavailable(err) || !errors.Is(err, context.DeadlineExceeded) ||
		!strings.Contains(err.Error(), "mirror.test") || !strings.Contains(err.Error(), "registry.test: no time was left") {
		t.Errorf("%v", err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if err := try.err(gone); err != context.Canceled {
		t.Errorf("abandoned: %v", err)
	}
}

// TestPrintable has a registry say what would clear a terminal.
func TestPrintable(t *testing.T) {
	req, err := http.NewRequest(http.MethodGet, "https://registry.test/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	err = statusError(&http.Response{
		Request: req, StatusCode: 500, Status: "500 \x1b[2J", Header: http.Header{"Retry-After": {"\x07"}},
		Body: io.NopCloser(strings.NewReader(`{"errors": [{"code": "X\u001b", "message": "two\nlines, größer\u009b"}]}`)),
	})
	if want := "GET https://registry.test/v2/: 500  [2J: X : two lines, größer  (Retry-After:  )"; err.Error() != want {
		t.Errorf("%q", err)
	}
}
