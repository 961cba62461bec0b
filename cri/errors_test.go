package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestStatusOf(t *testing.T) {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	peer := status.Error(codes.ResourceExhausted, "full")
	for name, test := range map[string]struct {
		ctx     context.Context
		err     error
		code    codes.Code
		message string
	}{
		"nil":               {over, nil, codes.OK, ""},
		"no kind":           {t.Context(), errors.New("odd"), codes.Unknown, "odd"},
		"no kind, ended":    {over, errors.New("odd"), codes.Canceled, "odd"},
		"kind by the end":   {over, fmt.Errorf("%w: %w", errdefs.ErrUnavailable, context.Canceled), codes.Canceled, "unavailable: context canceled"},
		"kind, other's end": {t.Context(), fmt.Errorf("%w: %w", errdefs.ErrUnavailable, context.Canceled), codes.Unavailable, "unavailable: context canceled"},
		"kind, ended":       {over, fmt.Errorf("x: %w", errdefs.ErrNotFound), codes.NotFound, "x: not found"},
		"full disk":         {t.Context(), fmt.Errorf("pull x: %w", &os.PathError{Op: "write", Path: "y", Err: unix.ENOSPC}), codes.ResourceExhausted, "pull x: write y: no space left on device"},
		"status":            {over, status.Error(codes.Unknown, "RegistryUnavailable: x"), codes.Unknown, "RegistryUnavailable: x"},
		"status in words":   {t.Context(), fmt.Errorf("pull x: %w", peer), codes.ResourceExhausted, "pull x: " + peer.Error()},
		"kind beats status": {t.Context(), fmt.Errorf("%w: %w", errdefs.ErrNotFound, peer), codes.NotFound, "not found: " + peer.Error()},
	} {
		got := status.Convert(statusOf(test.ctx, test.err))
		if got.Code() != test.code || got.Message() != test.message {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestAhead(t *testing.T) {
	if ctx, cancel := ahead(t.Context()); ctx != t.Context() {
		t.Error("a call without a deadline gets one")
		cancel()
	}
	for _, test := range []struct{ left, least, most time.Duration }{
		{2 * time.Minute, 118 * time.Second, 119 * time.Second}, {5 * time.Second, 4 * time.Second, 4500 * time.Millisecond},
		{-time.Minute, -2 * time.Minute, 0},
	} {
		began := time.Now()
		client, cancel := context.WithDeadline(t.Context(), began.Add(test.left))
		defer cancel()
		ctx, cancel := ahead(client)
		defer cancel()
		// It is told from when it is looked at, a moment later.
		deadline, _ := ctx.Deadline()
		if left := deadline.Sub(began); left < test.least || left > test.most+100*time.Millisecond {
			t.Errorf("of %v are left %v", test.left, left)
		}
	}
}
