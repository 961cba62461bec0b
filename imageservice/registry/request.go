package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
)

const (
	// authAttempts is how often a registry may ask who we are before one
	// request is answered.
	authAttempts = 3
	// answerFactor is how much longer than a manifest or blob other answers
	// may take to begin: lists are long, and uploads are prepared.
	answerFactor = 6
	// maxAnswer bounds what is read of an answer that is not an image's.
	maxAnswer = 8 << 20
)

// request is one to a host; it may be sent several times.
type request struct {
	method, url string
	header      http.Header
	// body, when not nil, opens what is sent, size bytes of it; the caller
	// sees to it that this does not take for ever.
	body func() (io.ReadCloser, error)
	size int64
}

// send sends a request to a host of the registry with its credentials, or to
// where the host sent us without them. The caller closes the answer's body.
func (a *attempt) send(ctx context.Context, host docker.RegistryHost, r request) (*http.Response, error) {
	to, err := url.Parse(r.url)
	if err != nil {
		return nil, fmt.Errorf("the registry gave a URL that does not parse: %w", errdefs.ErrUnavailable)
	}
	home := to.Scheme == host.Scheme && to.Host == host.Host
	var asked []*http.Response
	for {
		req, err := r.new(ctx)
		if err != nil {
			return nil, err
		}
		if home {
			for name, values := range host.Header {
				req.Header[name] = values
			}
			if host.Authorizer != nil {
				if err := authorize(ctx, host, req); err != nil {
					closeBody(req)
					return nil, err
				}
			}
		}
		do := host.Client.Do
		if r.body == nil {
			do = func(req *http.Request) (*http.Response, error) {
				return answer(host.Client, req, answerFactor*a.client.cfg.HeaderTimeout)
			}
		}
		resp, err := do(req)
		if err != nil || resp.StatusCode != http.StatusUnauthorized || !home || host.Authorizer == nil || len(asked) >= authAttempts ||
			isWeaker(req.URL, resp.Request.URL) {
			return resp, err
		}
		asked = append(asked, resp)
		if err := host.Authorizer.AddResponses(ctx, asked); err != nil {
			if errdefs.IsNotImplemented(err) {
				return resp, nil
			}
			resp.Body.Close()
			return nil, err
		}
		resp.Body.Close()
	}
}

// new makes the request anew.
func (r request) new(ctx context.Context) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "nodeagent")
	for name, values := range r.header {
		req.Header[name] = values
	}
	if r.body == nil {
		return req, nil
	}
	if req.Body, err = r.body(); err != nil {
		return nil, err
	}
	req.GetBody, req.ContentLength = r.body, r.size
	if r.size == 0 {
		closeBody(req)
		req.Body = http.NoBody
	}
	return req, nil
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// readJSON reads an answer of at most maxAnswer bytes. It closes the body.
func readJSON(resp *http.Response, into any) error {
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return err
	}
	if len(data) > maxAnswer {
		return fmt.Errorf("the registry answers with more than %d bytes: %w", maxAnswer, errdefs.ErrUnavailable)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("the registry answers with what is not JSON: %w: %w", err, errdefs.ErrUnavailable)
	}
	return nil
}
