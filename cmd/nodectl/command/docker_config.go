package command

import (
	"cmp"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/nodeagent/nodeagent/cmd/nodectl/terminal"
)

// DockerConfig is the person's configuration of docker, config.json: formats
// and detach keys that they set there hold here too. One that is missing or
// cannot be read is empty.
func DockerConfig() *configfile.ConfigFile {
	file, err := config.Load(config.Dir())
	if err != nil {
		return configfile.New("")
	}
	return file
}

// DetachKeys are the keys that a flag or else docker's configuration names.
func DetachKeys(flag string) ([]byte, error) {
	return terminal.DetachKeys(cmp.Or(flag, DockerConfig().DetachKeys))
}
