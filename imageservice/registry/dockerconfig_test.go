package registry

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// dockerHome makes docker's configuration that of the test, with helpers as
// shell scripts.
func dockerHome(t *testing.T, config string, helpers map[string]string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, script := range helpers {
		if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDockerConfig(t *testing.T) {
	basic := base64.StdEncoding.EncodeToString([]byte("me:secret"))
	store := `read server; case "$1 $server" in
"get r.test:5000") echo '{"Username": "stored", "Secret": "s"}';;
"get https://index.docker.io/v1/") echo '{"Username": "<token>", "Secret": "tok"}';;
*) echo 'credentials not found in native keychain'; exit 1;;
esac`
	for name, c := range map[string]struct {
		config, host string
		want         Credentials
		fails        string
	}{
		"auth":                      {`{"auths": {"r.test:5000": {"auth": "` + basic + `"}}}`, "r.test:5000", Credentials{Username: "me", Password: "secret"}, ""},
		"auth of a URL":             {`{"auths": {"https://r.test/v1/": {"auth": "` + basic + `"}}}`, "r.test", Credentials{Username: "me", Password: "secret"}, ""},
		"another port":              {`{"auths": {"r.test:5001": {"auth": "` + basic + `"}}}`, "r.test:5000", Credentials{}, ""},
		"another host":              {`{"auths": {"r.test.evil": {"auth": "` + basic + `"}}}`, "r.test", Credentials{}, ""},
		"hub":                       {`{"auths": {"https://index.docker.io/v1/": {"auth": "` + basic + `"}}}`, "docker.io", Credentials{Username: "me", Password: "secret"}, ""},
		"two for one host":          {`{"auths": {"r.test/team": {"identitytoken": "tok"}, "r.test": {"auth": "` + basic + `"}}}`, "r.test", Credentials{Username: "me", Password: "secret"}, ""},
		"hub, twice":                {`{"auths": {"docker.io": {"identitytoken": "tok"}, "https://index.docker.io/v1/": {"auth": "` + basic + `"}}}`, "docker.io", Credentials{Username: "me", Password: "secret"}, ""},
		"identity token":            {`{"auths": {"r.test": {"identitytoken": "tok"}}}`, "r.test", Credentials{IdentityToken: "tok"}, ""},
		"store":                     {`{"credsStore": "store"}`, "r.test:5000", Credentials{Username: "stored", Password: "s"}, ""},
		"store, hub, token":         {`{"credsStore": "store"}`, "docker.io", Credentials{IdentityToken: "tok"}, ""},
		"store, nothing there":      {`{"credsStore": "store"}`, "other.test", Credentials{}, ""},
		"helper of one registry":    {`{"credHelpers": {"r.test:5000": "store"}}`, "r.test:5000", Credentials{Username: "stored", Password: "s"}, ""},
		"helper of another":         {`{"credHelpers": {"x.test": "store"}}`, "r.test:5000", Credentials{}, ""},
		"helper that is not there":  {`{"credsStore": "missing"}`, "r.test", Credentials{}, "docker-credential-missing get r.test"},
		"helper that fails":         {`{"credsStore": "fails"}`, "r.test", Credentials{}, "exit status 3"},
		"helper that hangs":         {`{"credsStore": "hangs"}`, "r.test", Credentials{}, "no answer within"},
		"helper that babbles":       {`{"credsStore": "babbles"}`, "r.test", Credentials{}, "no JSON"},
		"helper elsewhere":          {`{"credsStore": "../../bin/sh"}`, "r.test", Credentials{}, "credential helper"},
		"helper with an option":     {`{"credsStore": "-x"}`, "r.test", Credentials{}, "credential helper"},
		"no JSON":                   {`{`, "r.test", Credentials{}, "config.json"},
		"auth that is not base64":   {`{"auths": {"r.test": {"auth": "%%"}}}`, "r.test", Credentials{}, "not base64"},
		"auth without the password": {`{"auths": {"r.test": {"auth": "bWU="}}}`, "r.test", Credentials{}, "no user and password"},
	} {
		t.Run(name, func(t *testing.T) {
			dockerHome(t, c.config, map[string]string{
				"store": store, "fails": "exit 3", "hangs": "exec sleep 60", "babbles": "yes | head -c 3000000",
			})
			defer func(d time.Duration) { helperTimeout = d }(helperTimeout)
			helperTimeout = 2 * time.Second
			got, from, err := lookupDocker(c.host)
			if got != c.want || (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%+v, %v", got, err)
			}
			if (from != "") != (got != Credentials{}) || strings.Contains(from, "secret") {
				t.Errorf("from %q", from)
			}
		})
	}
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	if got, _, err := lookupDocker("r.test"); err != nil || got != (Credentials{}) {
		t.Errorf("without a file: %+v, %v", got, err)
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 25, 18, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "soon": 0, "99999999999999999999": 0, "4000000": 0 + 24*time.Hour,
		"Wed, 25 Nov 2026 18:00:30 GMT": 30 * time.Second, "Wed, 25 Nov 2026 17:00:00 GMT": 0, "Fri, 25 Nov 2050 17:00:00 GMT": 24 * time.Hour,
	} {
		if got := parseRetryAfter(value, now); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}

func FuzzDockerConfig(f *testing.F) {
	f.Add(`{"auths": {"r.test": {"auth": "bWU6c2VjcmV0"}}}`)
	f.Add(`{"credHelpers": {"r.test": ""}, "auths": null}`)
	f.Fuzz(func(t *testing.T, config string) {
		if strings.Contains(config, "cred") {
			return // runs programs
		}
		path := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("DOCKER_CONFIG", filepath.Dir(path))
		if _, _, err := lookupDocker("r.test"); err != nil && !errdefs.IsInvalidArgument(err) {
			t.Error(err)
		}
	})
}

func FuzzHostsFile(f *testing.F) {
	f.Add("server = \"http://x\"\n[host.\"https://y\"]\ncapabilities = [\"pull\"]\n")
	f.Add("[host]\nx = 1\n")
	f.Add("host = 3\n[header]\nA = [\"b\"]\n")
	f.Fuzz(func(t *testing.T, text string) {
		root := t.TempDir()
		if err := os.Mkdir(filepath.Join(root, "r.test"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "r.test", hostsToml), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		a := &attempt{client: New(Config{CertsDirs: []string{root}}), registry: "r.test", repository: "x"}
		defer a.close()
		if _, err := a.endpoints(); err != nil && !errdefs.IsInvalidArgument(err) {
			t.Error(err)
		}
	})
}
