package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// pushAttempts is how often a blob is sent before it fails.
	pushAttempts = 4
	// pushStall is how long sending may stand still.
	pushStall = time.Minute
	// pushAnswer is how long a registry may think about what it got.
	pushAnswer = 5 * time.Minute
	// pushPause is the pause after the first failure; it doubles.
	pushPause = 200 * time.Millisecond
)

// Target is a repository that something is pushed to.
type Target struct {
	attempt *attempt
	host    docker.RegistryHost
	// repository is its name at the registry, tag that of the reference.
	repository, tag string
}

// Outcome is how a blob came to be at the registry.
type Outcome struct {
	// Existed says that the repository had it already.
	Existed bool
	// From is the repository it was mounted from, when it was.
	From string
}

// Push prepares pushing to the repository and under the tag of a reference.
// The caller closes the target.
func (c *Client) Push(ref reference.NamedTagged, creds Credentials) (*Target, error) {
	a := &attempt{client: c, creds: creds, registry: reference.Domain(ref)}
	hosts, err := a.hosts(reference.Domain(ref))
	if err != nil {
		a.close()
		return nil, a.explain(err)
	}
	at := slices.IndexFunc(hosts, func(h docker.RegistryHost) bool { return h.Capabilities.Has(docker.HostCapabilityPush) })
	if at < 0 {
		a.close()
		return nil, fmt.Errorf("no host of %s may be pushed to: %w", reference.Domain(ref), errdefs.ErrFailedPrecondition)
	}
	return &Target{attempt: a, host: hosts[at], repository: reference.Path(ref), tag: ref.Tag()}, nil
}

// Close lets go of connections.
func (t *Target) Close() { t.attempt.close() }

// Blob is what is sent.
type Blob struct {
	Desc ocispec.Descriptor
	// Open opens it from its beginning; it may be called again.
	Open func() (io.ReadCloser, error)
	// From are repositories of the same registry that may have it.
	From []string
	// Sent, when not nil, is called with the bytes sent so far.
	Sent func(n int64)
}

// Has tells whether the repository has a blob.
func (t *Target) Has(ctx context.Context, dgst digest.Digest) (bool, error) {
	resp, err := t.attempt.send(t.scope(ctx), t.host, request{method: http.MethodHead, url: t.url("blobs/" + dgst.String())})
	if err != nil {
		return false, t.attempt.explain(err)
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusNotFound {
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK, nil
	}
	return false, t.attempt.explain(statusError(resp))
}

// Send sends a blob that the repository does not have, or a manifest, which
// gets the target's tag. What breaks off is sent again a few times.
func (t *Target) Send(ctx context.Context, b Blob) (Outcome, error) {
	pause := pushPause
	for n := 1; ; n++ {
		out, err := t.send(ctx, b)
		if err == nil {
			return out, nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return out, cause
		}
		err = t.attempt.explain(err)
		if n >= pushAttempts || !errdefs.IsUnavailable(err) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return out, fmt.Errorf("push %s: %w", b.Desc.Digest, err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return out, context.Cause(ctx)
		}
		pause *= 2
	}
}

// send is one attempt.
func (t *Target) send(ctx context.Context, b Blob) (Outcome, error) {
	if images.IsManifestType(b.Desc.MediaType) || images.IsIndexType(b.Desc.MediaType) {
		return Outcome{}, t.put(t.scope(ctx), b, t.url("manifests/"+t.tag), b.Desc.MediaType)
	}
	has, err := t.Has(ctx, b.Desc.Digest)
	if err != nil || has {
		return Outcome{Existed: has}, err
	}
	for _, from := range b.From {
		mounted, err := t.mount(ctx, b.Desc.Digest, from)
		if err == nil && mounted {
			return Outcome{From: from}, nil
		}
		// One that may not be read from is no reason not to send.
		if cause := context.Cause(ctx); cause != nil {
			return Outcome{}, cause
		}
	}
	location, err := t.begin(ctx)
	if err != nil {
		return Outcome{}, err
	}
	query := location.Query()
	query.Set("digest", b.Desc.Digest.String())
	location.RawQuery = query.Encode()
	return Outcome{}, t.put(t.scope(ctx), b, location.String(), "application/octet-stream")
}

// mount asks for a blob of another repository.
func (t *Target) mount(ctx context.Context, dgst digest.Digest, from string) (bool, error) {
	query := url.Values{"mount": {dgst.String()}, "from": {from}}
	ctx = docker.ContextWithAppendPullRepositoryScope(t.scope(ctx), from)
	resp, err := t.attempt.send(ctx, t.host, request{method: http.MethodPost, url: t.url("blobs/uploads/?" + query.Encode())})
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if location, err := t.location(resp); err == nil && resp.StatusCode == http.StatusAccepted {
		// It began an upload that nobody will end.
		gone, err := t.attempt.send(t.scope(ctx), t.host, request{method: http.MethodDelete, url: location.String()})
		if err == nil {
			gone.Body.Close()
		}
	}
	return resp.StatusCode == http.StatusCreated, nil
}

// begin opens an upload and returns where to send it.
func (t *Target) begin(ctx context.Context) (*url.URL, error) {
	resp, err := t.attempt.send(t.scope(ctx), t.host, request{method: http.MethodPost, url: t.url("blobs/uploads/")})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusAccepted {
		return nil, statusError(resp)
	}
	defer resp.Body.Close()
	return t.location(resp)
}

// location is where an answer sends us.
func (t *Target) location(resp *http.Response) (*url.URL, error) {
	location, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" {
		return nil, fmt.Errorf("the registry does not say where to send to: %w", errdefs.ErrUnavailable)
	}
	if location.Host == t.host.Host && location.Scheme == resp.Request.URL.Scheme {
		// The client may have taken plain HTTP where TLS was not spoken, and
		// will again.
		location.Scheme = t.host.Scheme
	}
	return location, nil
}

// errStalled ends a transfer that stands still.
var errStalled = fmt.Errorf("the registry takes no more: %w", errdefs.ErrUnavailable)

// put sends a body whole.
func (t *Target) put(ctx context.Context, b Blob, to, mediaType string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(pushStall, func() { cancel(errStalled) })
	defer stalled.Stop()
	resp, err := t.attempt.send(ctx, t.host, request{
		method: http.MethodPut, url: to, header: http.Header{"Content-Type": {mediaType}}, size: b.Desc.Size,
		body: func() (io.ReadCloser, error) {
			r, err := b.Open()
			if err != nil {
				return nil, err
			}
			return &watched{ReadCloser: r, moved: func(n int64) {
				wait := pushStall
				if n >= b.Desc.Size {
					wait = pushAnswer
				}
				stalled.Reset(wait)
				if b.Sent != nil {
					b.Sent(n)
				}
			}}, nil
		},
	})
	if err != nil {
		if errors.Is(context.Cause(ctx), errStalled) {
			return errStalled
		}
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return statusError(resp)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != b.Desc.Digest.String() {
		return fmt.Errorf("the registry stored %q in place of %s: %w", got, b.Desc.Digest, errdefs.ErrDataLoss)
	}
	return nil
}

// scope says in tokens that are asked for what they are for.
func (t *Target) scope(ctx context.Context) context.Context {
	return docker.WithScope(ctx, "repository:"+t.repository+":pull,push")
}

func (t *Target) url(path string) string { return repositoryURL(t.host, t.repository, path) }

// repositoryURL is an address of a repository.
func repositoryURL(host docker.RegistryHost, repository, path string) string {
	return host.Scheme + "://" + host.Host + strings.TrimSuffix(host.Path, "/") + "/" + repository + "/" + path
}

// watched tells how far reading is.
type watched struct {
	io.ReadCloser
	n     int64
	moved func(int64)
}

// Read counts.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if w.n += int64(n); n > 0 {
		w.moved(w.n)
	}
	return n, err
}
