package registry

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
)

// Login finds out whether a registry, a host without a path, takes
// credentials. It returns the token that the registry wants kept in place of
// the password, if it gives one.
func (c *Client) Login(ctx context.Context, registry string, creds Credentials) (identityToken string, err error) {
	ctx, cancel := context.WithTimeout(ctx, browseTimeout)
	defer cancel()
	a := &attempt{client: c, creds: creds, registry: registry}
	defer a.close()
	hosts, err := a.hosts(registry)
	if err != nil {
		return "", a.explain(err)
	}
	if len(hosts) == 0 {
		return "", fmt.Errorf("%s is configured to have no host: %w", registry, errdefs.ErrFailedPrecondition)
	}
	// The registry itself, whatever mirrors stand before it.
	host := hosts[len(hosts)-1]
	var mu sync.Mutex
	if creds.RegistryToken == "" {
		host.Authorizer = docker.NewDockerAuthorizer(
			docker.WithAuthClient(host.Client), docker.WithAuthHeader(host.Header), docker.WithAuthCreds(a.credentials),
			docker.WithFetchRefreshToken(func(_ context.Context, token string, _ *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				identityToken = token
			}))
	}
	address := host.Scheme + "://" + host.Host + strings.TrimSuffix(host.Path, "/") + "/"
	resp, err := a.send(ctx, host, request{method: http.MethodGet, url: address})
	if err != nil {
		return "", a.explain(err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", a.explain(statusError(resp))
	}
	resp.Body.Close()
	mu.Lock()
	defer mu.Unlock()
	return identityToken, nil
}
