package registry

import (
	"context"
	"errors"
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
