package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
)

// Error is a failure at a registry.
type Error struct {
	// Kind is one of the errors of errdefs.
	Kind error
	// Tried are the addresses that were asked, the registry's own last.
	Tried []string
	// Err is what happened; secrets in URLs are taken out of its text.
	Err  error
	text string
}

// Error names what happened and where.
func (e *Error) Error() string {
	return fmt.Sprintf("%s (tried %s): %v", e.text, strings.Join(e.Tried, ", "), e.Kind)
}

// Unwrap returns kind and cause.
func (e *Error) Unwrap() []error { return []error{e.Kind, e.Err} }

// explain gives an error a kind. What has one that is not of the network's
// making, and a context's end, stay as they are.
func (a *attempt) explain(err error) error {
	var done *Error
	if errors.As(err, &done) || errors.Is(err, context.Canceled) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	kind, text := classify(err)
	if kind == nil {
		return err
	}
	return &Error{Kind: kind, Tried: a.tried, Err: err, text: text}
}

func classify(err error) (kind error, text string) {
	var status remoteerrors.ErrUnexpectedStatus
	var urlErr *url.Error
	var netErr net.Error
	switch {
	case errors.As(err, &status):
		return statusKind(status.StatusCode), statusText(status, err)
	case errors.Is(err, docker.ErrInvalidAuthorization):
		return errdefs.ErrUnauthenticated, "authorization failed"
	case errdefs.IsNotFound(err):
		return errdefs.ErrNotFound, "no such image"
	case errdefs.IsFailedPrecondition(err) && strings.Contains(err.Error(), "expected size"):
		return errdefs.ErrDataLoss, "more bytes than announced"
	case errdefs.IsInvalidArgument(err), errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &urlErr):
		return nil, ""
	case errors.As(err, &urlErr):
		return errdefs.ErrUnavailable, redact(urlErr)
	case errors.As(err, &netErr), errors.Is(err, syscall.ECONNRESET), isTLS(err):
		return errdefs.ErrUnavailable, err.Error()
	case errors.Is(err, io.EOF):
		return errdefs.ErrUnavailable, "the registry hung up"
	}
	return nil, ""
}

func statusKind(code int) error {
	switch {
	case code == http.StatusUnauthorized:
		return errdefs.ErrUnauthenticated
	case code == http.StatusForbidden:
		return errdefs.ErrPermissionDenied
	case code == http.StatusNotFound:
		return errdefs.ErrNotFound
	case code == http.StatusTooManyRequests, code >= 500:
		return errdefs.ErrUnavailable
	}
	return errdefs.ErrUnknown
}

// statusText names the request and what the registry said about it.
func statusText(status remoteerrors.ErrUnexpectedStatus, err error) string {
	text := fmt.Sprintf("%s %s: %s", status.RequestMethod, withoutSecrets(status.RequestURL), status.Status)
	var said docker.Errors
	if errors.As(err, &said) {
		text += ": " + said.Error()
	}
	return text
}

func redact(err *url.Error) string {
	return fmt.Sprintf("%s %s: %v", err.Op, withoutSecrets(err.URL), err.Err)
}

// withoutSecrets drops user and query, where registries and those they
// redirect to put signatures and tokens.
func withoutSecrets(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(a URL that does not parse)"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

func isTLS(err error) bool {
	var header tls.RecordHeaderError
	var cert *tls.CertificateVerificationError
	return errors.As(err, &header) || errors.As(err, &cert)
}
