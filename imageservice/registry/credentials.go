package registry

import (
	"encoding/base64"
	"fmt"
	"strings"

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
