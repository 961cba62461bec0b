package registry

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
)

// Credentials say who we are. The zero value says nothing.
type Credentials struct {
	Username, Password string
	// IdentityToken is exchanged for tokens at the authorization server.
	IdentityToken string
	// RegistryToken is sent to the registry as it is.
	RegistryToken string
	// ServerAddress, when not empty, is the only registry they are for.
	ServerAddress string
}

// ParseBasic takes the base64 form of "user:password" apart, as docker's
// config.json has it.
func ParseBasic(auth string) (user, password string, err error) {
	data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(auth))
	if err != nil {
		return "", "", fmt.Errorf("credentials: auth is not base64: %w", errdefs.ErrInvalidArgument)
	}
	user, password, ok := strings.Cut(string(data), ":")
	if !ok {
		return "", "", fmt.Errorf("credentials: auth holds no user and password: %w", errdefs.ErrInvalidArgument)
	}
	return user, strings.TrimRight(password, "\x00"), nil
}

// isFor tells whether the credentials may be used at a registry.
func (c Credentials) isFor(registry string) bool {
	if c.ServerAddress == "" {
		return true
	}
	host := HostOf(c.ServerAddress)
	return host == registry || isHub(host) && isHub(registry)
}

// isHub knows the names of Docker Hub.
func isHub(host string) bool {
	switch host {
	case "docker.io", "index.docker.io", "registry-1.docker.io":
		return true
	}
	return false
}

// credentials answers a host that asks who we are: with what the caller gave
// for the registry, or else with what docker's configuration has for that host.
func (a *attempt) credentials(host string) (user, secret string, err error) {
	c, _, err := a.credentialsFor(host)
	if c.IdentityToken != "" {
		// No user and a secret: a token to get tokens with.
		return "", c.IdentityToken, err
	}
	return c.Username, c.Password, err
}

// credentialsFor also says where they come from; empty for none.
func (a *attempt) credentialsFor(host string) (c Credentials, from string, err error) {
	registry := host
	if a.trusted[host] {
		registry = a.registry
		if given := a.creds; !given.empty() {
			if !given.isFor(a.registry) {
				return Credentials{}, "", nil
			}
			return given, "the caller", nil
		}
	}
	return lookupDocker(registry)
}

// empty tells whether nothing is said.
func (c Credentials) empty() bool {
	return c.Username == "" && c.Password == "" && c.IdentityToken == "" && c.RegistryToken == ""
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
