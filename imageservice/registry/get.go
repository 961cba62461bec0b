package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
)

const (
	// tries is how often the last host is asked.
	tries = 4
	// maxPause is the longest Retry-After that is waited for.
	maxPause = 30 * time.Second
	// maxChallenges bounds the authentications of one request.
	maxChallenges = 3
	// authTimeout bounds getting a token.
	authTimeout = 30 * time.Second
	// maxErrorBody is how much of an error's explanation is read.
	maxErrorBody = 64 << 10
)

// query is what is asked of an endpoint; path is below the repository.
type query struct {
	method, path, accept string
	byteRange            string
	// patient asks again, and waits when told to.
	patient bool
}

// errNoAnswer ends a request whose answer does not begin.
var errNoAnswer = errors.New("no answer")

// do makes a request, and answers with what is not an error.
func (e *endpoint) do(ctx context.Context, r query) (*http.Response, error) {
	for try := 1; ; try++ {
		if err := e.rest(ctx, r.patient); err != nil {
			return nil, err
		}
		resp, err := e.once(ctx, r)
		if err == nil && resp.StatusCode < 300 {
			return resp, nil
		}
		var wait time.Duration
		if err == nil {
			wait = e.retryAfter(resp)
			err = statusError(resp)
		}
		if ctx.Err() != nil || !r.patient || try >= tries || !worthRetrying(err) || wait > maxPause {
			return nil, err
		}
		if err := pause(ctx, max(wait, backoff(try))); err != nil {
			return nil, err
		}
	}
}

// once makes a request once, but for authentication.
func (e *endpoint) once(ctx context.Context, r query) (*http.Response, error) {
	ctx = docker.WithScope(ctx, "repository:"+e.repository+":pull")
	var seen []*http.Response
	for {
		req, err := e.newRequest(ctx, r)
		if err != nil {
			return nil, err
		}
		if err := authorize(ctx, e.host, req); err != nil {
			return nil, err
		}
		resp, err := answer(e.host.Client, req, e.timeout)
		if err != nil || resp.StatusCode != http.StatusUnauthorized || len(seen) >= maxChallenges || isWeaker(req.URL, resp.Request.URL) {
			return resp, err
		}
		seen = append(seen, resp)
		err = e.host.Authorizer.AddResponses(ctx, seen)
		if errdefs.IsNotImplemented(err) {
			return resp, nil // it does not say how
		}
		resp.Body.Close()
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", r.method, withoutSecrets(resp.Request.URL.String()), err)
		}
	}
}

func (e *endpoint) newRequest(ctx context.Context, r query) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, e.url(r.path), nil)
	if err != nil {
		return nil, err
	}
	for name, values := range e.host.Header {
		req.Header[http.CanonicalHeaderKey(name)] = append([]string(nil), values...)
	}
	req.Header.Set("User-Agent", "nodeagent")
	req.Header.Set("Accept", r.accept)
	// The bytes as they are, or their digest is another.
	req.Header.Set("Accept-Encoding", "identity")
	if r.byteRange != "" {
		req.Header.Set("Range", r.byteRange)
	}
	return req, nil
}

// url is where a path below the repository is at this endpoint.
func (e *endpoint) url(path string) string {
	u := url.URL{Scheme: e.host.Scheme, Host: e.host.Host, Path: e.host.Path + "/" + e.repository + "/" + path}
	if e.foreign {
		// Mirrors of several registries tell by this what is meant.
		u.RawQuery = url.Values{"ns": {e.registry}}.Encode()
	}
	return u.String()
}

// authorize says in a request to a host who we are.
func authorize(ctx context.Context, host docker.RegistryHost, req *http.Request) error {
	ctx, cancel := context.WithTimeout(ctx, authTimeout)
	defer cancel()
	if err := host.Authorizer.Authorize(ctx, req); err != nil {
		return fmt.Errorf("authorize for %s: %w", host.Host, err)
	}
	return nil
}

// answer makes a request and waits for the answer's beginning, not for long.
// Closing the body frees what it holds.
func answer(client *http.Client, req *http.Request, within time.Duration) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(within, func() { cancel(fmt.Errorf("%w within %s", errNoAnswer, within)) })
	resp, err := client.Do(req.WithContext(ctx))
	timer.Stop()
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errNoAnswer) {
			err = &url.Error{Op: req.Method, URL: req.URL.String(), Err: cause}
		}
		cancel(nil)
		return nil, err
	}
	resp.Body = &freeing{resp.Body, cancel}
	return resp, nil
}

// freeing ends a request's context with its body.
type freeing struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

// Close closes the body.
func (f *freeing) Close() error {
	defer f.cancel(nil)
	return f.ReadCloser.Close()
}

// quiet is until when a host asked to be left alone.
type quiet struct {
	mu    sync.Mutex
	until time.Time
}

// rest waits until a host may be asked again; one who need not be asked is
// left out.
func (e *endpoint) rest(ctx context.Context, patient bool) error {
	e.quiet.mu.Lock()
	wait := time.Until(e.quiet.until)
	e.quiet.mu.Unlock()
	if wait <= 0 {
		return nil
	}
	if !patient || wait > maxPause {
		return fmt.Errorf("%s: it asked not to be asked again for %s: %w", e.host.Host, wait.Round(time.Second), errdefs.ErrUnavailable)
	}
	return pause(ctx, wait)
}

// retryAfter notes and returns how long a host wants to be left alone.
func (e *endpoint) retryAfter(resp *http.Response) time.Duration {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	wait := parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
	e.quiet.mu.Lock()
	defer e.quiet.mu.Unlock()
	if until := time.Now().Add(wait); until.After(e.quiet.until) {
		e.quiet.until = until
	}
	return wait
}

// parseRetryAfter reads seconds or a date; what is neither is zero.
func parseRetryAfter(value string, now time.Time) time.Duration {
	const most = 24 * time.Hour
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, most)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), most)
}

// worthRetrying tells whether asking the same host again may help.
func worthRetrying(err error) bool {
	var status *StatusError
	if errors.As(err, &status) {
		switch status.Code {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound || isTLS(err) || errors.Is(err, errNoAnswer) || errors.Is(err, errRedirect) {
		return false
	}
	var netErr net.Error
	return errors.As(err, &netErr)
}

// backoff grows, and differs from one caller to another.
func backoff(try int) time.Duration {
	d := 200 * time.Millisecond << min(try-1, 5)
	return d/2 + rand.N(d)
}

// pause waits, unless the context ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
