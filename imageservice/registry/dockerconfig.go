package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

const (
	// maxDockerConfig bounds a config.json, maxHelperOutput what a
	// credential helper answers.
	maxDockerConfig = 4 << 20
	maxHelperOutput = 1 << 20
)

// helperTimeout is how long a credential helper may take.
var helperTimeout = 10 * time.Second

// hubKey is the name docker's configuration has for docker.io.
const hubKey = "https://index.docker.io/v1/"

// dockerFile is the part of config.json that is about credentials.
type dockerFile struct {
	Auths map[string]struct {
		Auth          string `json:"auth"`
		Username      string `json:"username"`
		Password      string `json:"password"`
		IdentityToken string `json:"identitytoken"`
		RegistryToken string `json:"registrytoken"`
	} `json:"auths"`
	CredsStore  string            `json:"credsStore"`
	CredHelpers map[string]string `json:"credHelpers"`
}

// dockerConfigPath is where config.json is; empty when that cannot be told.
func dockerConfigPath() string {
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			// A service has no HOME, as a rule.
			u, err := user.Current()
			if err != nil || u.HomeDir == "" {
				return ""
			}
			home = u.HomeDir
		}
		dir = filepath.Join(home, ".docker")
	}
	return filepath.Join(dir, "config.json")
}

// lookupDocker finds the credentials that docker's config.json of the user the
// agent runs as has for a registry, anew each time. That there are none is no
// error.
func lookupDocker(registry string) (c Credentials, from string, err error) {
	path := dockerConfigPath()
	if path == "" {
		return Credentials{}, "", nil
	}
	file, err := readDockerFile(path)
	if err != nil || file == nil {
		return Credentials{}, "", err
	}
	for _, key := range dockerKeys(registry) {
		if helper, ok := file.CredHelpers[key]; ok {
			return askHelper(helper, key, path)
		}
	}
	for _, key := range file.keys(registry) {
		entry := file.Auths[key]
		c := Credentials{Username: entry.Username, Password: entry.Password, IdentityToken: entry.IdentityToken, RegistryToken: entry.RegistryToken}
		if entry.Auth != "" {
			if c.Username, c.Password, err = ParseBasic(entry.Auth); err != nil {
				return Credentials{}, "", fmt.Errorf("%s: %s: %w", path, key, err)
			}
		}
		if !c.empty() {
			return c, path, nil
		}
	}
	if file.CredsStore == "" {
		return Credentials{}, "", nil
	}
	return askHelper(file.CredsStore, dockerKeys(registry)[0], path)
}

// dockerToken is the registry token that config.json has for a registry, if
// any. That the file is bad is told when a host asks who we are.
func dockerToken(registry string) string {
	file, err := readDockerFile(dockerConfigPath())
	if err != nil || file == nil {
		return ""
	}
	for _, key := range file.keys(registry) {
		if token := file.Auths[key].RegistryToken; token != "" {
			return token
		}
	}
	return ""
}

// keys are the entries for a registry, those first that docker would take.
func (f *dockerFile) keys(registry string) []string {
	var keys []string
	for _, key := range append(dockerKeys(registry), slices.Sorted(maps.Keys(f.Auths))...) {
		_, ok := f.Auths[key]
		if host := HostOf(key); ok && (host == registry || isHub(host) && isHub(registry)) {
			keys = append(keys, key)
		}
	}
	return keys
}

// dockerKeys are the names a registry may have in config.json, docker's own
// first.
func dockerKeys(registry string) []string {
	if isHub(registry) {
		return []string{hubKey, "docker.io", "index.docker.io", "registry-1.docker.io"}
	}
	return []string{registry, "https://" + registry, "https://" + registry + "/v1/", "https://" + registry + "/v2/"}
}

// readDockerFile reads a config.json; nil when there is none.
func readDockerFile(path string) (*dockerFile, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read docker's configuration: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxDockerConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read docker's configuration: %w", err)
	}
	file := new(dockerFile)
	if len(raw) > maxDockerConfig {
		return nil, fmt.Errorf("read %s: more than %d bytes: %w", path, maxDockerConfig, errdefs.ErrInvalidArgument)
	}
	if err := json.Unmarshal(raw, file); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", path, err, errdefs.ErrInvalidArgument)
	}
	return file, nil
}

// helperName is what may follow docker-credential- in a helper's name.
var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// askHelper runs a credential helper, as
// https://docs.docker.com/reference/cli/docker/login/#credential-helper-protocol
// says.
func askHelper(helper, server, path string) (c Credentials, from string, err error) {
	if !helperName.MatchString(helper) {
		return c, "", fmt.Errorf("%s: credential helper %.80q: %w", path, helper, errdefs.ErrInvalidArgument)
	}
	ctx, cancel := context.WithTimeout(context.Background(), helperTimeout)
	defer cancel()
	program := "docker-credential-" + helper
	// The registry has asked for credentials, and only the helper knows
	// them: this is not a pod's way to its start but a pull's.
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.Stdin, cmd.WaitDelay = strings.NewReader(server), time.Second
	out := &bounded{left: maxHelperOutput}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		if strings.Contains(out.String(), "credentials not found") {
			return c, "", nil
		}
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer within %s", helperTimeout)
		}
		return c, "", fmt.Errorf("%s get %s: %w: %w", program, server, err, errdefs.ErrUnavailable)
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		return c, "", fmt.Errorf("%s get %s: the answer is no JSON: %w", program, server, errdefs.ErrInvalidArgument)
	}
	c = Credentials{Username: answer.Username, Password: answer.Secret}
	if answer.Username == "<token>" {
		c = Credentials{IdentityToken: answer.Secret}
	}
	return c, program + " (" + path + ")", nil
}

// bounded keeps the beginning of what is written.
type bounded struct {
	bytes.Buffer
	left int
}

// Write drops what is too much.
func (b *bounded) Write(p []byte) (int, error) {
	keep := min(len(p), b.left)
	b.left -= keep
	b.Buffer.Write(p[:keep])
	return len(p), nil
}
