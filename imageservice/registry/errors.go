package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
)

// Error is a failure at a registry and all its mirrors.
type Error struct {
	// Kind is one of the errors of errdefs: that of the registry itself,
	// or of the last that was asked.
	Kind error
	// Failures are those of each host that was asked, in order.
	Failures []Failure
}

// Failure is what happened at one host.
type Failure struct {
	// Host is the one that was asked.
	Host string
	// Text says what was asked and what went wrong, without secrets.
	Text string
	// Config is the file and line that names the host; empty for none.
	Config string
	Err    error
}

// Error names what happened, at which address, and what configured it.
func (e *Error) Error() string {
	texts := make([]string, len(e.Failures))
	for i, f := range e.Failures {
		texts[i] = f.Text
		if !strings.Contains(f.Text, f.Host) {
			texts[i] = f.Host + ": " + f.Text
		}
		if f.Config != "" {
			texts[i] += " (configured in " + f.Config + ")"
		}
	}
	return strings.Join(texts, "; then ") + ": " + e.Kind.Error()
}

// Unwrap returns kind and causes.
func (e *Error) Unwrap() []error {
	list := []error{e.Kind}
	for _, f := range e.Failures {
		list = append(list, f.Err)
	}
	return list
}

// trial collects what went wrong at one host after another.
type trial struct {
	what string
	// kind is that of the last failure.
	kind     error
	failures []Failure
}

// failed notes a failure, and tells whether to give up.
func (t *trial) failed(ctx context.Context, e *endpoint, err error) bool {
	kind, text := classify(err)
	over := ctx.Err() != nil
	switch {
	case over:
		kind, text, err = errdefs.ErrUnavailable, "no time was left", context.Cause(ctx)
	case kind == nil:
		kind = errdefs.ErrUnavailable
	}
	t.kind = kind
	t.failures = append(t.failures, Failure{Host: e.host.Host, Text: text, Config: e.config, Err: err})
	return over
}

// err is what all failures together mean. That nobody wants the answer any
// more says all; that there was no time is told beside whom it went to.
func (t *trial) err(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	if len(t.failures) == 0 {
		return fmt.Errorf("%s: no host is configured to be asked: %w", t.what, errdefs.ErrInvalidArgument)
	}
	return &Error{Kind: t.kind, Failures: t.failures}
}

// StatusError is an answer that is an error.
type StatusError struct {
	Code int
	text string
}

// Error is the request, the status, and what the registry says of it.
func (e *StatusError) Error() string { return e.text }

// statusError reads an answer's error, and closes it.
func statusError(resp *http.Response) error {
	defer resp.Body.Close()
	text := fmt.Sprintf("%s %s: %s", resp.Request.Method, withoutSecrets(resp.Request.URL.String()), resp.Status)
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	var said struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(raw, &said) == nil && len(said.Errors) > 0 {
		text += fmt.Sprintf(": %.100s: %.300s", said.Errors[0].Code, said.Errors[0].Message)
	}
	if after := resp.Header.Get("Retry-After"); after != "" {
		text += fmt.Sprintf(" (Retry-After: %.40s)", after)
	}
	return &StatusError{Code: resp.StatusCode, text: printable(text)}
}

// printable takes from what a stranger says all that would do more to a terminal
// than to be shown.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

// classify gives an error a kind and words.
func classify(err error) (kind error, text string) {
	var status *StatusError
	var token remoteerrors.ErrUnexpectedStatus
	var urlErr *url.Error
	switch {
	case errors.As(err, &status):
		return statusKind(status.Code), status.Error()
	case errors.As(err, &token):
		// Of the authorization server.
		text := fmt.Sprintf("%s %s: %s", token.RequestMethod, withoutSecrets(token.RequestURL), token.Status)
		return statusKind(token.StatusCode), text
	case errors.Is(err, docker.ErrInvalidAuthorization):
		return errdefs.ErrUnauthenticated, trimKind(err, docker.ErrInvalidAuthorization, "authorization failed")
	case errors.As(err, &urlErr):
		return errdefs.ErrUnavailable, networkText(urlErr)
	}
	for _, kind := range []error{errdefs.ErrInvalidArgument, errdefs.ErrDataLoss, errdefs.ErrUnavailable, errdefs.ErrNotFound} {
		if errors.Is(err, kind) {
			return kind, trimKind(err, kind, "")
		}
	}
	return nil, err.Error()
}

// explain gives an error of a request to one host a kind and words. What has
// nothing to do with the network, and a context's end, stay as they are.
func (a *attempt) explain(err error) error {
	var done *Error
	if errors.As(err, &done) || errors.Is(err, context.Canceled) {
		return err
	}
	kind, text := classify(err)
	if kind == nil || errors.Is(err, context.DeadlineExceeded) && kind != errdefs.ErrUnavailable {
		return err
	}
	return &Error{Kind: kind, Failures: []Failure{{Text: text, Err: err}}}
}

// trimKind takes the kind's words from the end of an error's.
func trimKind(err, kind error, instead string) string {
	text, found := strings.CutSuffix(err.Error(), kind.Error())
	text = strings.TrimRight(text, ": ")
	switch {
	case found && instead != "" && text != "":
		return text + ": " + instead
	case found && text == "":
		return instead
	}
	return text
}

// networkText words what happened below HTTP, with advice where there is one
// likely reason.
func networkText(err *url.Error) string {
	text := fmt.Sprintf("%s %s: %v", strings.ToUpper(err.Op), withoutSecrets(err.URL), err.Err)
	text, _ = strings.CutSuffix(text, ": "+errdefs.ErrUnavailable.Error())
	var unknown x509.UnknownAuthorityError
	var header tls.RecordHeaderError
	switch {
	case errors.As(err.Err, &header), strings.Contains(text, "server gave HTTP response to HTTPS client"):
		text += `; it speaks plain HTTP: name it "http://" in a hosts.toml`
	case errors.As(err.Err, &unknown):
		text += `; name the authority's certificate as "ca" in a hosts.toml`
	}
	return text
}

func statusKind(code int) error {
	switch {
	case code == http.StatusUnauthorized:
		return errdefs.ErrUnauthenticated
	case code == http.StatusForbidden:
		return errdefs.ErrPermissionDenied
	case code == http.StatusNotFound:
		return errdefs.ErrNotFound
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code >= 500:
		return errdefs.ErrUnavailable
	}
	return errdefs.ErrUnknown
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
	var alert tls.AlertError
	return errors.As(err, &header) || errors.As(err, &cert) || errors.As(err, &alert)
}
