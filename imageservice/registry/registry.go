// Package registry resolves image references at registries, and opens what
// they name, over the OCI distribution API: hosts.toml directories read anew
// at each use, mirrors, TLS, and credentials that go to the registry asked
// for and to nobody else.
//
// Errors are ErrNotFound, ErrUnavailable for a registry that does not answer
// or is overloaded, ErrUnauthenticated and ErrPermissionDenied, and
// ErrInvalidArgument for a configuration that does not parse.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/pelletier/go-toml/v2"
)

// resolveTimeout bounds asking for what a name means; all mirrors together.
const resolveTimeout = 2 * time.Minute

// Config says how registries are reached.
type Config struct {
	// CertsDirs hold folders named after registries with a hosts.toml or
	// certificates, as containerd's certs.d; the first that has one for the
	// registry, or one called _default, is taken.
	CertsDirs []string
}

// Client talks to registries. It has no state of its own.
type Client struct{ cfg Config }

// New returns a client.
func New(cfg Config) *Client { return &Client{cfg} }

// Source is an image at a registry.
type Source struct {
	// Desc is what the reference names: an index or a manifest.
	Desc ocispec.Descriptor

	fetcher remotes.Fetcher
	attempt *attempt
}

// Resolve asks for what a reference with tag or digest names. The caller
// closes the source.
func (c *Client) Resolve(ctx context.Context, ref reference.Named, creds Credentials) (*Source, error) {
	a := &attempt{client: c, creds: creds, registry: reference.Domain(ref)}
	src, err := c.resolve(ctx, ref, a)
	if err != nil {
		a.close()
		return nil, a.explain(err)
	}
	return src, nil
}

func (c *Client) resolve(ctx context.Context, ref reference.Named, a *attempt) (*Source, error) {
	resolver := docker.NewResolver(docker.ResolverOptions{
		Hosts:   a.hosts,
		Headers: http.Header{"User-Agent": {"nodeagent"}},
	})
	limited, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	name, desc, err := resolver.Resolve(limited, ref.String())
	if err != nil {
		return nil, err
	}
	fetcher, err := resolver.Fetcher(ctx, name)
	if err != nil {
		return nil, err
	}
	return &Source{Desc: desc, fetcher: fetcher, attempt: a}, nil
}

// Open opens a manifest or blob of the same repository. URLs that its
// descriptor names are not followed.
func (s *Source) Open(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	desc.URLs = nil
	r, err := s.fetcher.Fetch(ctx, desc)
	if err != nil {
		return nil, s.attempt.explain(err)
	}
	return &body{r, s.attempt}, nil
}

// Close lets go of connections.
func (s *Source) Close() { s.attempt.close() }

// body explains errors of reading, which is when the request is made.
type body struct {
	io.ReadCloser
	attempt *attempt
}

// Read may be the first to reach the registry.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = b.attempt.explain(err)
	}
	return n, err
}

// Seek makes the next Read begin elsewhere.
func (b *body) Seek(offset int64, whence int) (int64, error) {
	s, ok := b.ReadCloser.(io.Seeker)
	if !ok {
		return 0, errors.New("seek in a blob: not possible")
	}
	return s.Seek(offset, whence)
}

// hostDir finds the folder with the configuration of a registry. A hosts.toml
// that does not parse is an error: going on without it would ask the wrong
// host.
func (c *Client) hostDir(host string) (string, error) {
	for _, root := range c.cfg.CertsDirs {
		dir, err := config.HostDirFromRoot(root)(host)
		if errdefs.IsNotFound(err) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		return dir, checkHostsFile(filepath.Join(dir, "hosts.toml"))
	}
	return "", errdefs.ErrNotFound
}

// maxHostsFile bounds a hosts.toml.
const maxHostsFile = 1 << 20

func checkHostsFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var any map[string]any
	if err := toml.NewDecoder(io.LimitReader(f, maxHostsFile)).Decode(&any); err != nil {
		return fmt.Errorf("read %s: %w: %w", path, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// attempt is one resolution and what follows it, with one set of credentials.
type attempt struct {
	client   *Client
	creds    Credentials
	registry string
	// trusted are the hosts that may get the credentials.
	trusted map[string]bool
	tried   []string
	clients []*http.Client
}

// hosts is a docker.RegistryHosts.
func (a *attempt) hosts(host string) ([]docker.RegistryHost, error) {
	configure := config.ConfigureHosts(context.Background(), config.HostOptions{
		HostDir:     a.client.hostDir,
		Credentials: a.credentials,
	})
	hosts, err := configure(host)
	if err != nil {
		return nil, err
	}
	// The last is the registry itself, under the address that hosts.toml
	// gives it; those before it are mirrors, which are somebody else.
	trusted := map[string]bool{a.registry: true}
	for i := range hosts {
		if i == len(hosts)-1 {
			trusted[hosts[i].Host] = true
		}
		if a.creds.RegistryToken != "" && trusted[hosts[i].Host] && a.creds.isFor(a.registry) {
			hosts[i].Authorizer = tokenAuthorizer{hosts[i].Host, a.creds.RegistryToken}
		}
		client := *hosts[i].Client
		client.CheckRedirect = checkRedirect(hosts[i].Authorizer, hosts[i].Header)
		hosts[i].Client = &client
		a.clients = append(a.clients, &client)
		a.tried = append(a.tried, hosts[i].Scheme+"://"+hosts[i].Host+hosts[i].Path)
	}
	a.trusted = trusted
	return hosts, nil
}

// maxRedirects is as many as net/http follows.
const maxRedirects = 10

// checkRedirect takes from a request that goes elsewhere what was meant for
// the registry: net/http keeps the former for other ports of the same host,
// and headers it does not know for everybody.
func checkRedirect(auth docker.Authorizer, headers http.Header) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return fmt.Errorf("more than %d redirections", maxRedirects)
		}
		if from := via[0].URL; from.Scheme == req.URL.Scheme && from.Host == req.URL.Host {
			return nil
		}
		req.Header.Del("Authorization")
		for name := range headers {
			req.Header.Del(name)
		}
		// It may be a place that asked us for a token of its own.
		return auth.Authorize(req.Context(), req)
	}
}

func (a *attempt) close() {
	for _, c := range a.clients {
		c.CloseIdleConnections()
	}
}

// credentials answers a host that asks who we are.
func (a *attempt) credentials(host string) (user, secret string, err error) {
	if !a.trusted[host] || !a.creds.isFor(a.registry) {
		return "", "", nil
	}
	if a.creds.IdentityToken != "" {
		// No user and a secret: a token to get tokens with.
		return "", a.creds.IdentityToken, nil
	}
	return a.creds.Username, a.creds.Password, nil
}

// tokenAuthorizer sends a bearer token that the caller got elsewhere.
type tokenAuthorizer struct{ host, token string }

// Authorize adds the token to requests for its host, and so not to those that
// follow a redirection to another.
func (t tokenAuthorizer) Authorize(_ context.Context, req *http.Request) error {
	if req.URL.Host == t.host {
		req.Header.Set("Authorization", "Bearer "+t.token)
	}
	return nil
}

// AddResponses is asked when the token was refused; there is no other.
func (t tokenAuthorizer) AddResponses(context.Context, []*http.Response) error {
	return fmt.Errorf("the registry token was refused: %w", docker.ErrInvalidAuthorization)
}

// HostOf is the host of a server address, which may be a URL.
func HostOf(address string) string {
	address = strings.TrimPrefix(strings.TrimPrefix(address, "https://"), "http://")
	host, _, _ := strings.Cut(address, "/")
	return host
}
