package cri

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// invalid is a refusal of a request's field, named as in api.proto.
func invalid(field, reason string) error {
	return fmt.Errorf("%s: %s: %w", field, reason, errdefs.ErrInvalidArgument)
}

// missing is a refusal of a request that lacks a field.
func missing(field string) error {
	return invalid(field, "is missing")
}

// ofImage names the field of a request that an image could not be found by.
func ofImage(err error) error {
	if errdefs.IsInvalidArgument(err) {
		return fmt.Errorf("image.image: %w", err)
	}
	return err
}

// statusOf turns an error into what goes over the wire. ctx is the call's: when
// it is over, an error without a kind is its doing, and so is one that wraps
// its end, whatever else it is ("registry unavailable: deadline exceeded").
func statusOf(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if st, ok := err.(grpcError); ok {
		return st.GRPCStatus().Err()
	}
	code := codeOf(err)
	if st, ok := errors.AsType[grpcError](err); ok && code == codes.Unknown {
		// From a peer of ours; the words around it are kept.
		code = st.GRPCStatus().Code()
	}
	if ctx.Err() != nil && (code == codes.Unknown || errors.Is(err, ctx.Err())) {
		code = codeOf(ctx.Err())
	}
	return status.Error(code, message(err))
}

// message is an error's text without the words of its kind at the end, where
// the code says the same and the text is complete without them.
func message(err error) string {
	text := err.Error()
	switch kind := errdefs.Resolve(err); kind {
	case errdefs.ErrInvalidArgument, errdefs.ErrFailedPrecondition, errdefs.ErrUnavailable, errdefs.ErrInternal:
		if short := strings.TrimSuffix(text, ": "+kind.Error()); strings.Contains(short, ": ") {
			return short
		}
	}
	return text
}

// grpcError is an error that has a code already.
type grpcError interface {
	error
	GRPCStatus() *status.Status
}

// codeOf gives the gRPC code of an error's kind.
func codeOf(err error) codes.Code {
	switch errdefs.Resolve(err) {
	case nil:
		return codes.OK
	case errdefs.ErrInvalidArgument:
		return codes.InvalidArgument
	case errdefs.ErrNotFound:
		return codes.NotFound
	case errdefs.ErrAlreadyExists:
		return codes.AlreadyExists
	case errdefs.ErrPermissionDenied:
		return codes.PermissionDenied
	case errdefs.ErrUnauthenticated:
		return codes.Unauthenticated
	case errdefs.ErrResourceExhausted:
		return codes.ResourceExhausted
	case errdefs.ErrFailedPrecondition, errdefs.ErrConflict, errdefs.ErrNotModified:
		return codes.FailedPrecondition
	case errdefs.ErrAborted:
		return codes.Aborted
	case errdefs.ErrOutOfRange:
		return codes.OutOfRange
	case errdefs.ErrNotImplemented:
		return codes.Unimplemented
	case errdefs.ErrUnavailable:
		return codes.Unavailable
	case errdefs.ErrDataLoss:
		return codes.DataLoss
	case errdefs.ErrInternal:
		return codes.Internal
	case context.DeadlineExceeded:
		return codes.DeadlineExceeded
	case context.Canceled:
		return codes.Canceled
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return codes.ResourceExhausted // a disk that is full, wherever that was found
	}
	return codes.Unknown
}
