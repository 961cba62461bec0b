package image

import (
	"github.com/distribution/reference"
	"github.com/docker/cli/cli/config"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// dockerHub is the name docker's configuration has for docker.io.
const dockerHub = "https://index.docker.io/v1/"

// Credentials are those that an image would be pulled with; nil for none.
func Credentials(ref string) *nodev1.Auth {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return nil
	}
	return credentials(reference.Domain(named))
}

// credentials are what docker's config.json and its helpers have for a
// registry; nil where they have none. A configuration that cannot be read is
// no reason not to pull: the registry then says what it wants.
func credentials(domain string) *nodev1.Auth {
	if domain == "docker.io" || domain == "index.docker.io" {
		domain = dockerHub
	}
	file, err := config.Load(config.Dir())
	if err != nil {
		return nil
	}
	auth, err := file.GetAuthConfig(domain)
	if err != nil || (auth.Username == "" && auth.Auth == "" && auth.IdentityToken == "" && auth.RegistryToken == "") {
		return nil
	}
	return &nodev1.Auth{
		Username: auth.Username, Password: auth.Password, Auth: auth.Auth,
		IdentityToken: auth.IdentityToken, RegistryToken: auth.RegistryToken,
		// For this registry and no other, whatever a file or helper says.
		ServerAddress: domain,
	}
}
