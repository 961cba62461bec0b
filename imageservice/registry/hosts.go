package registry

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/pelletier/go-toml/v2"
)

// maxHostsFile bounds a hosts.toml.
const maxHostsFile = 1 << 20

// attempt is one resolution and what follows it, with one set of credentials.
type attempt struct {
	client     *Client
	creds      Credentials
	registry   string
	repository string
	// trusted are the hosts that may get the credentials.
	trusted map[string]bool
	// found is the folder the registry is configured by, and what was
	// looked for on the way.
	found   string
	looked  []ConfigFile
	clients []*http.Client
}

// ConfigFile is a configuration file that was looked for.
type ConfigFile struct {
	Path string
	// State is "used", "missing", or why it cannot be used.
	State string
}

// endpoint is one host that is asked for an image.
type endpoint struct {
	host                 docker.RegistryHost
	registry, repository string
	// mirror is not the registry itself; foreign is one that has to be
	// told which registry is meant.
	mirror, foreign bool
	// config is the file and line that names it; empty for none.
	config  string
	timeout time.Duration
	quiet   quiet
}

func (c *Client) newAttempt(ref reference.Named, creds Credentials) *attempt {
	return &attempt{client: c, creds: creds, registry: reference.Domain(ref), repository: reference.Path(ref)}
}

// endpoints lists whom to ask, the registry itself last.
func (a *attempt) endpoints() ([]*endpoint, error) {
	hosts, err := a.hosts(a.registry)
	if err != nil {
		return nil, err
	}
	file := hostsFile{path: filepath.Join(a.found, hostsToml)}
	if a.found != "" {
		file.read()
	}
	list := make([]*endpoint, len(hosts))
	for i, h := range hosts {
		list[i] = &endpoint{
			host: h, registry: a.registry, repository: a.repository, timeout: a.client.cfg.HeaderTimeout,
			mirror: i < len(hosts)-1, config: file.line(h.Scheme, h.Host), foreign: h.Host != a.registry && !(isHub(a.registry) && isHub(h.Host)),
		}
	}
	return list, nil
}

const hostsToml = "hosts.toml"

// hostDir finds the folder with the configuration of a registry. A hosts.toml
// that does not parse is an error: going on without it would ask the wrong
// host.
func (a *attempt) hostDir(host string) (string, error) {
	for _, root := range a.client.cfg.CertsDirs {
		dir, err := config.HostDirFromRoot(root)(host)
		if errdefs.IsNotFound(err) || errors.Is(err, fs.ErrNotExist) {
			a.looked = append(a.looked, ConfigFile{filepath.Join(root, host, hostsToml), "missing"})
			continue
		}
		if err != nil {
			return "", err
		}
		path := filepath.Join(dir, hostsToml)
		state, err := checkHostsFile(path)
		if err != nil {
			a.looked = append(a.looked, ConfigFile{path, err.Error()})
			return "", err
		}
		a.looked = append(a.looked, ConfigFile{path, state})
		a.found = dir
		return dir, nil
	}
	return "", errdefs.ErrNotFound
}

// hostsFileKeys are those that containerd knows, at the top and for a host.
var hostsFileKeys = map[string]bool{
	"server": true, "host": true, "capabilities": true, "ca": true, "client": true, "skip_verify": true,
	"header": true, "override_path": true, "dial_timeout": true,
}

// checkHostsFile refuses a file that does not parse. Keys that are not known
// are named in what it returns: the folder may be shared with programs that know
// more.
func checkHostsFile(path string) (state string, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "missing; certificates beside it are used", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	var top map[string]any
	if err := toml.NewDecoder(io.LimitReader(f, maxHostsFile)).Decode(&top); err != nil {
		return "", fmt.Errorf("read %s: %s: %w", path, tomlError(err), errdefs.ErrInvalidArgument)
	}
	var unknown []string
	for key, value := range top {
		hosts, isTable := value.(map[string]any)
		switch {
		case !hostsFileKeys[key]:
			unknown = append(unknown, key)
		case key == "host" && isTable:
			for name, entries := range hosts {
				table, _ := entries.(map[string]any)
				for key := range table {
					if !hostsFileKeys[key] || key == "server" || key == "host" {
						unknown = append(unknown, name+" "+key)
					}
				}
			}
		}
	}
	if len(unknown) == 0 {
		return "used", nil
	}
	slices.Sort(unknown)
	return fmt.Sprintf("used, but for what is not known: %.300s", strings.Join(unknown, ", ")), nil
}

// tomlError says where a file is wrong.
func tomlError(err error) string {
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		row, column := decode.Position()
		return fmt.Sprintf("line %d, column %d: %s", row, column, strings.TrimPrefix(decode.Error(), "toml: "))
	}
	return err.Error()
}

// hostsFile finds the lines that name hosts.
type hostsFile struct {
	path  string
	lines []string
}

func (f *hostsFile) read() {
	file, err := os.Open(f.path)
	if err != nil {
		return
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxHostsFile))
	if err != nil {
		return
	}
	scanner := bufio.NewScanner(bytes.NewReader(text))
	for scanner.Scan() {
		f.lines = append(f.lines, strings.TrimSpace(scanner.Text()))
	}
}

// line is the file and line that names a host; empty when none does.
func (f *hostsFile) line(scheme, host string) string {
	for _, how := range []string{scheme + "://" + host, "//" + host, `"` + host} {
		for i, line := range f.lines {
			if (strings.HasPrefix(line, "server") || strings.HasPrefix(line, "[host.")) && strings.Contains(line, how) {
				return fmt.Sprintf("%s:%d", f.path, i+1)
			}
		}
	}
	return ""
}

// hosts is a docker.RegistryHosts.
func (a *attempt) hosts(host string) ([]docker.RegistryHost, error) {
	a.looked, a.found = nil, ""
	configure := config.ConfigureHosts(context.Background(), config.HostOptions{
		HostDir:      a.hostDir,
		Credentials:  a.credentials,
		UpdateClient: tune,
	})
	hosts, err := configure(host)
	if err != nil {
		if !errdefs.IsInvalidArgument(err) {
			err = fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		return nil, fmt.Errorf("configuration of registry %s: %w", host, err)
	}
	given := a.creds
	if given.empty() {
		given.RegistryToken = dockerToken(a.registry)
	}
	// The last is the registry itself, under the address that hosts.toml
	// gives it; those before it are mirrors, which are somebody else.
	a.trusted = map[string]bool{a.registry: true}
	for i := range hosts {
		if i == len(hosts)-1 {
			a.trusted[hosts[i].Host] = true
		}
		if given.RegistryToken != "" && a.trusted[hosts[i].Host] && given.isFor(a.registry) {
			hosts[i].Authorizer = tokenAuthorizer{hosts[i].Host, given.RegistryToken}
		}
		client := *hosts[i].Client
		client.CheckRedirect = checkRedirect(hosts[i].Authorizer, hosts[i].Header)
		hosts[i].Client = &client
		a.clients = append(a.clients, &client)
	}
	return hosts, nil
}

// tune makes a client fit for many blobs at once. It is the one that tokens
// are asked for with, too, and there passwords must not be redirected.
func tune(client *http.Client) error {
	if t, ok := client.Transport.(*http.Transport); ok {
		t.MaxIdleConnsPerHost = 16
		t.ReadBufferSize = 64 << 10
	}
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if from := via[0].URL; from.Scheme != req.URL.Scheme || from.Host != req.URL.Host {
			return fmt.Errorf("%w of an authorization request to %s", errRedirect, req.URL.Host)
		}
		if len(via) >= maxRedirects {
			return fmt.Errorf("%w: more than %d", errRedirect, maxRedirects)
		}
		return nil
	}
	return nil
}

// maxRedirects is as many as net/http follows.
const maxRedirects = 10

// errRedirect is one that is not followed.
var errRedirect = errors.New("redirection")

// checkRedirect takes from a request that goes elsewhere what was meant for
// the registry: net/http keeps the former for other ports of the same host,
// and headers it does not know for everybody.
func checkRedirect(auth docker.Authorizer, headers http.Header) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return fmt.Errorf("%w: more than %d", errRedirect, maxRedirects)
		}
		if from := via[0].URL; from.Scheme == req.URL.Scheme && from.Host == req.URL.Host {
			return nil
		}
		req.Header.Del("Authorization")
		for name := range headers {
			req.Header.Del(name)
		}
		if isWeaker(via[0].URL, req.URL) {
			return nil
		}
		// It may be a place that asked us for a token of its own.
		return auth.Authorize(req.Context(), req)
	}
}

// isWeaker tells that a request by TLS is led to where there is none: whoever
// listens or answers there is told nothing.
func isWeaker(from, to *url.URL) bool {
	local, _ := docker.MatchLocalhost(to.Host)
	return from.Scheme == "https" && to.Scheme == "http" && !local
}

func (a *attempt) close() {
	for _, c := range a.clients {
		c.CloseIdleConnections()
	}
}
