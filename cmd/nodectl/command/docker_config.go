package command

import (
	"cmp"
	"fmt"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/nodeagent/nodeagent/cmd/nodectl/terminal"
)

// DockerHub is the name docker's configuration has for docker.io.
const DockerHub = "https://index.docker.io/v1/"

// DockerConfig is the person's configuration of docker, config.json: formats,
// detach keys and credentials that are set there hold here too. One that is
// missing is empty, and so is one that cannot be read, of which it warns once.
func (c *CLI) DockerConfig() *configfile.ConfigFile {
	c.config.Do(func() {
		var err error
		if c.configFile, err = config.Load(config.Dir()); err != nil {
			fmt.Fprintln(c.Err, "WARNING: Error", err)
			c.configFile = configfile.New("")
		}
	})
	return c.configFile
}

// DetachKeys are the keys that a flag or else docker's configuration names.
func (c *CLI) DetachKeys(flag string) ([]byte, error) {
	return terminal.DetachKeys(cmp.Or(flag, c.DockerConfig().DetachKeys))
}
