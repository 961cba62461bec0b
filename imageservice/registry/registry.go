// Package registry resolves image references at registries, and opens what
// they name, over the OCI distribution API: hosts.toml directories read anew
// at each use, mirrors, TLS, proxies, and credentials that go to the registry
// asked for and to nobody else.
//
// A request goes to mirrors and registry in order. One that fails is made at
// the next; only the last is asked again, with growing pauses, or when it says
// so itself (Retry-After). A host that broke off, stood still or sent wrong
// bytes comes last for what remains of the same pull.
//
// Errors are ErrNotFound, ErrUnavailable for a registry that does not answer
// or is overloaded, ErrUnauthenticated and ErrPermissionDenied, ErrDataLoss for
// lengths that are not those of the manifest, and ErrInvalidArgument for a
// configuration that does not parse. They name each address that was tried.
package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// resolveTimeout bounds asking for what a name means; all mirrors together.
	resolveTimeout = 2 * time.Minute
	// maxManifest bounds a manifest whose digest has to be computed, in bytes.
	maxManifest = 8 << 20
)

// manifestTypes are what is asked for when a name is resolved.
var manifestTypes = strings.Join([]string{
	ocispec.MediaTypeImageIndex, images.MediaTypeDockerSchema2ManifestList,
	ocispec.MediaTypeImageManifest, images.MediaTypeDockerSchema2Manifest, "*/*",
}, ", ")

// Config says how registries are reached.
type Config struct {
	// CertsDirs hold folders named after registries with a hosts.toml or
	// certificates, as containerd's certs.d; the first that has one for the
	// registry, or one called _default, is taken.
	CertsDirs []string
	// HeaderTimeout is how long a host may take to begin an answer; zero
	// means 10 seconds.
	HeaderTimeout time.Duration
}

// Client talks to registries. It has no state of its own.
type Client struct{ cfg Config }

// New returns a client.
func New(cfg Config) *Client {
	if cfg.HeaderTimeout <= 0 {
		cfg.HeaderTimeout = 10 * time.Second
	}
	return &Client{cfg}
}

// Source is an image at a registry. Its methods may be called at once from
// many goroutines.
type Source struct {
	// Desc is what the reference names: an index or a manifest.
	Desc ocispec.Descriptor

	ref       reference.Named
	attempt   *attempt
	endpoints []*endpoint

	// mu guards what follows.
	mu sync.Mutex
	// faults counts the troubles with each endpoint, served is who sent a
	// blob last: nil when it was asked for and nobody has.
	faults map[*endpoint]int
	served map[digest.Digest]*endpoint
}

// Resolve asks for what a reference with tag or digest names. The caller
// closes the source.
func (c *Client) Resolve(ctx context.Context, ref reference.Named, creds Credentials) (*Source, error) {
	a := c.newAttempt(ref, creds)
	src, err := c.resolve(ctx, ref, a)
	if err != nil {
		a.close()
		return nil, err
	}
	return src, nil
}

func (c *Client) resolve(ctx context.Context, ref reference.Named, a *attempt) (*Source, error) {
	endpoints, err := a.endpoints()
	if err != nil {
		return nil, err
	}
	s := &Source{
		ref: ref, attempt: a, faults: map[*endpoint]int{}, served: map[digest.Digest]*endpoint{},
		endpoints: having(endpoints, docker.HostCapabilityPull),
	}
	limited, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	askable := having(endpoints, docker.HostCapabilityResolve)
	if _, ok := ref.(reference.Digested); ok {
		// A digest means the same everywhere.
		askable = s.endpoints
	}
	t := &trial{what: "resolve"}
	for i, e := range askable {
		desc, err := e.resolve(limited, ref, i == len(askable)-1)
		if err == nil {
			s.Desc = desc
			return s, nil
		}
		if t.failed(limited, e, err) {
			break
		}
	}
	return nil, t.err(limited)
}

// having filters endpoints by what they can do.
func having(list []*endpoint, c docker.HostCapabilities) []*endpoint {
	return slices.DeleteFunc(slices.Clone(list), func(e *endpoint) bool { return !e.host.Capabilities.Has(c) })
}

// tagOrDigest is the last part of a manifest's path.
func tagOrDigest(ref reference.Named) string {
	switch r := ref.(type) {
	case reference.Digested:
		return r.Digest().String()
	case reference.Tagged:
		return r.Tag()
	}
	return "latest"
}

// resolve asks one endpoint what a reference names: by HEAD, which rate limits
// do not count, and by GET where that does not tell.
func (e *endpoint) resolve(ctx context.Context, ref reference.Named, patient bool) (ocispec.Descriptor, error) {
	req := query{method: http.MethodHead, path: "manifests/" + tagOrDigest(ref), accept: manifestTypes, patient: patient}
	resp, err := e.do(ctx, req)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	resp.Body.Close()
	desc := ocispec.Descriptor{
		MediaType: mediaType(resp.Header), Digest: digest.Digest(resp.Header.Get("Docker-Content-Digest")), Size: resp.ContentLength,
	}
	if desc.Digest == "" || desc.Size < 0 || desc.MediaType == "" || desc.MediaType == "text/plain" {
		if desc, err = e.read(ctx, req); err != nil {
			return desc, err
		}
	}
	return desc, checkResolved(ref, desc)
}

// read gets the manifest itself, to see what HEAD did not tell.
func (e *endpoint) read(ctx context.Context, req query) (ocispec.Descriptor, error) {
	req.method = http.MethodGet
	resp, err := e.do(ctx, req)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if len(raw) > maxManifest {
		return ocispec.Descriptor{}, fmt.Errorf("a manifest of more than %d bytes: %w", maxManifest, errdefs.ErrInvalidArgument)
	}
	return ocispec.Descriptor{MediaType: mediaType(resp.Header), Digest: digest.FromBytes(raw), Size: int64(len(raw))}, nil
}

// errPage is an answer that no registry gives.
var errPage = fmt.Errorf("it answers with a web page: is it a registry, or a proxy's or network's login page?: %w", errdefs.ErrUnavailable)

// checkResolved refuses what cannot be the answer.
func checkResolved(ref reference.Named, desc ocispec.Descriptor) error {
	if desc.MediaType == "text/html" {
		return errPage
	}
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("it answers with digest %.100q: %w", desc.Digest, errdefs.ErrInvalidArgument)
	}
	if digested, ok := ref.(reference.Digested); ok && digested.Digest() != desc.Digest {
		return fmt.Errorf("it answers with digest %s: %w", desc.Digest, errdefs.ErrDataLoss)
	}
	return nil
}

func mediaType(h http.Header) string {
	mt, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return printable(strings.TrimSpace(mt))
}

// Open opens a manifest or blob of the same repository. URLs that its
// descriptor names are not followed.
func (s *Source) Open(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	r, _, err := s.OpenRange(ctx, desc, 0, -1)
	return r, err
}

// OpenRange opens it at an offset, for length bytes or, when that is negative,
// to its end. A registry without ranges answers from the beginning: start is
// where the reader really is.
func (s *Source) OpenRange(ctx context.Context, desc ocispec.Descriptor, offset, length int64) (r io.ReadCloser, start int64, err error) {
	req := query{method: http.MethodGet, path: "blobs/" + desc.Digest.String(), accept: "*/*"}
	if images.IsManifestType(desc.MediaType) || images.IsIndexType(desc.MediaType) {
		req.path, req.accept = "manifests/"+desc.Digest.String(), desc.MediaType+", */*"
	}
	if offset > 0 || length >= 0 {
		req.byteRange = "bytes=" + strconv.FormatInt(offset, 10) + "-"
		if length >= 0 {
			req.byteRange += strconv.FormatInt(offset+length-1, 10)
		}
	}
	list := s.order(desc.Digest)
	t := &trial{what: "fetch"}
	for i, e := range list {
		req.patient = i == len(list)-1
		resp, err := e.do(ctx, req)
		if err == nil {
			if start, err = checkLength(resp, desc, offset); err != nil {
				resp.Body.Close()
			}
		}
		if err == nil {
			s.note(desc.Digest, e)
			return &body{resp.Body, s, e}, start, nil
		}
		s.blame(e)
		if t.failed(ctx, e, err) {
			break
		}
	}
	return nil, 0, t.err(ctx)
}

// checkLength refuses an answer that cannot be the blob.
func checkLength(resp *http.Response, desc ocispec.Descriptor, offset int64) (start int64, err error) {
	total := resp.ContentLength
	if mediaType(resp.Header) == "text/html" {
		return 0, errPage
	}
	if resp.StatusCode == http.StatusPartialContent {
		var end int64
		given := resp.Header.Get("Content-Range")
		if _, err := fmt.Sscanf(given, "bytes %d-%d/", &start, &end); err != nil || start != offset {
			return 0, fmt.Errorf("it answers with range %.100q: %w", given, errdefs.ErrUnavailable)
		}
		// A star stands for a size that is not known.
		_, size, _ := strings.Cut(given, "/")
		if total, err = strconv.ParseInt(size, 10, 64); err != nil {
			total = -1
		}
	}
	if total >= 0 && total != desc.Size {
		return 0, fmt.Errorf("it has %d bytes of %s in place of %d: %w", total, desc.Digest, desc.Size, errdefs.ErrDataLoss)
	}
	return start, nil
}

// order lists the endpoints to ask for a blob, those without trouble first.
func (s *Source) order(d digest.Digest) []*endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.served[d]; !ok {
		s.served[d] = nil
	}
	list := slices.Clone(s.endpoints)
	slices.SortStableFunc(list, func(a, b *endpoint) int { return s.faults[a] - s.faults[b] })
	return list
}

func (s *Source) note(d digest.Digest, e *endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served[d] = e
}

// blame makes an endpoint come after those with less trouble.
func (s *Source) blame(e *endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[e]++
}

// Distrust has who sent a blob that turned out to be wrong come last from now
// on, and tells whether there is anybody else to ask.
func (s *Source) Distrust(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	bad, asked := s.served[d]
	if bad == nil {
		// Unless we were refused, it came from somewhere else, for
		// somebody else.
		return !asked
	}
	const wrong = 1000
	s.faults[bad] += wrong
	return slices.ContainsFunc(s.endpoints, func(e *endpoint) bool { return s.faults[e] < wrong })
}

// Close lets go of connections.
func (s *Source) Close() { s.attempt.close() }

// body blames who breaks off.
type body struct {
	io.ReadCloser
	s *Source
	e *endpoint
}

// Read reads on.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.s.blame(b.e)
		err = fmt.Errorf("%s broke off: %w: %w", b.e.host.Host, err, errdefs.ErrUnavailable)
	}
	return n, err
}
