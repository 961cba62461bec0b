package image

import (
	"github.com/distribution/reference"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
)

// Credentials are those that an image would be pulled with; nil for none.
func Credentials(cli *command.CLI, ref string) *nodev1.Auth {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return nil
	}
	return credentials(cli, reference.Domain(named))
}

// credentials are what docker's config.json and its helpers have for a
// registry; nil where they have none. A helper that fails is no reason not to
// pull: the registry then says what it wants.
func credentials(cli *command.CLI, domain string) *nodev1.Auth {
	if domain == "docker.io" || domain == "index.docker.io" {
		domain = command.DockerHub
	}
	auth, err := cli.DockerConfig().GetAuthConfig(domain)
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
