package imageservice

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/internal/testenv"
)

// basicAuth is a registry's door with user and password.
func basicAuth(w http.ResponseWriter, r *http.Request) bool {
	if user, pass, ok := r.BasicAuth(); ok && user == "me" && pass == "secret" {
		return false
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
	w.WriteHeader(http.StatusUnauthorized)
	return true
}

// tokenAuth is a registry's door with tokens. Its authorization server takes
// the password, or an identity token.
func tokenAuth(t *testing.T, identity *string) func(w http.ResponseWriter, r *http.Request) bool {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		user, pass, _ := r.BasicAuth()
		ok := user == "me" && pass == "secret" ||
			r.Form.Get("username") == "me" && r.Form.Get("password") == "secret" ||
			r.Form.Get("grant_type") == "refresh_token" && r.Form.Get("refresh_token") == "identity"
		if !ok {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		*identity = r.Form.Get("refresh_token")
		json.NewEncoder(w).Encode(map[string]string{"token": "abc", "access_token": "abc"})
	}))
	t.Cleanup(server.Close)
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Bearer abc" || r.Header.Get("Authorization") == "Bearer direct" {
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="test",scope="repository:private:pull"`, server.URL+"/token"))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
}

func TestAuthentication(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	push(t, reg.URL, "private", "latest", newTestImage(asGzip, tarOf("a=1")))
	var identity string
	basic, token := newProxy(t, reg.URL, basicAuth), newProxy(t, reg.URL, tokenAuth(t, &identity))
	password := Auth{Username: "me", Password: "secret"}
	for name, c := range map[string]struct {
		door *proxy
		auth Auth
		fail bool
	}{
		"basic":                    {basic, password, false},
		"basic in base64":          {basic, Auth{Auth: base64.StdEncoding.EncodeToString([]byte("me:secret"))}, false},
		"basic for this server":    {basic, Auth{Username: "me", Password: "secret", ServerAddress: basic.URL + "/v1/"}, false},
		"basic for another server": {basic, Auth{Username: "me", Password: "secret", ServerAddress: "https://index.docker.io/v1/"}, true},
		"basic, none":              {basic, Auth{}, true},
		"basic, wrong":             {basic, Auth{Username: "me", Password: "wrong"}, true},
		"token":                    {token, password, false},
		"identity token":           {token, Auth{IdentityToken: "identity"}, false},
		"registry token":           {token, Auth{RegistryToken: "direct"}, false},
		"wrong registry token":     {token, Auth{RegistryToken: "wrong"}, true},
		"token, none":              {token, Auth{}, true},
		"token, wrong":             {token, Auth{Username: "me", Password: "wrong"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Config{})
			identity = ""
			_, err := s.Pull(t.Context(), PullRequest{Ref: c.door.host + "/private", Auth: c.auth})
			if c.fail && !errdefs.IsUnauthorized(err) {
				t.Errorf("want refusal, got %v", err)
			}
			if !c.fail && err != nil {
				t.Error(err)
			}
			if err != nil && (strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), c.door.host)) {
				t.Errorf("bad words: %v", err)
			}
			if c.auth.IdentityToken != "" && identity != c.auth.IdentityToken {
				t.Errorf("the authorization server got %q", identity)
			}
		})
	}
	s := openStore(t, Config{})
	if _, err := s.Pull(t.Context(), PullRequest{Ref: basic.host + "/private", Auth: Auth{Auth: "%%%"}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("auth that is not base64: %v", err)
	}
}

// CVE-2020-15157: credentials sent to whom a manifest names. Neither a mirror,
// nor where a registry redirects to, nor a URL in a manifest, gets them.
func TestCVE202015157CredentialsStayHome(t *testing.T) {
	testenv.Root(t)
	reg := testenv.EmptyRegistry(t)
	i := newTestImage(asGzip, tarOf("a=1"))
	foreign := newProxy(t, reg.URL, nil)
	push(t, reg.URL, "private", "latest", i)
	// The registry does not take such a manifest; another may.
	i.manifest.Layers[0].URLs = []string{foreign.URL + "/v2/private/stolen"}
	i.seal()
	mirror := newProxy(t, reg.URL, func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("WWW-Authenticate", `Basic realm="give me"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	home := newProxy(t, reg.URL, func(w http.ResponseWriter, r *http.Request) bool {
		if basicAuth(w, r) {
			return true
		}
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", i.manifest.MediaType)
			w.Header().Set("Docker-Content-Digest", i.descriptor().Digest.String())
			w.Header().Set("Content-Length", fmt.Sprint(len(i.raw)))
			w.Write(i.raw)
			return true
		}
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, foreign.URL+r.URL.Path+"?signature=hidden", http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	certs := t.TempDir()
	hostsToml(t, certs, "registry.test", fmt.Sprintf("server = %q\n[header]\nX-Key = \"secret\"\n[host.%q]\n", home.URL, mirror.URL))
	for name, auth := range map[string]Auth{"password": {Username: "me", Password: "secret"}} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Config{CertsDirs: []string{certs}})
			if _, err := s.Pull(t.Context(), PullRequest{Ref: "registry.test/private", Auth: auth}); err != nil {
				t.Error(err)
			}
		})
	}
	foreign.mu.Lock()
	for _, r := range foreign.seen {
		if r.Header.Get("X-Key") != "" {
			t.Error("the target of a redirection got a header of hosts.toml")
		}
	}
	foreign.mu.Unlock()
	if mirror.authorized() {
		t.Error("the mirror got credentials")
	}
	if foreign.authorized() {
		t.Error("the target of a redirection got credentials")
	}
	if !home.authorized() || foreign.count("/blobs/") == 0 || foreign.count("stolen") != 0 {
		t.Errorf("asked elsewhere %d times, at the manifest's URL %d", foreign.count("/blobs/"), foreign.count("stolen"))
	}
}

func TestHostsToml(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	i := newTestImage(asGzip, tarOf("a=1"))
	push(t, reg.URL, "library/x", "latest", i)
	dead := newProxy(t, reg.URL, nil)
	dead.Close()
	tls := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, reg.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(tls.Close)
	prefixed := newProxy(t, reg.URL, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/odd/place/") || r.Header.Get("X-Extra") != "yes" {
			w.WriteHeader(http.StatusTeapot)
			return true
		}
		r.URL.Path = "/v2/" + strings.TrimPrefix(r.URL.Path, "/odd/place/")
		return false
	})
	for name, text := range map[string]string{
		"mirror":            fmt.Sprintf("[host.%q]\n", reg.URL),
		"dead mirror first": fmt.Sprintf("server = %q\n[host.%q]\n", reg.URL, dead.URL),
		"plain http server": fmt.Sprintf("server = %q\n", reg.URL),
		"skip_verify":       fmt.Sprintf("[host.%q]\nskip_verify = true\n", tls.URL),
		"override_path and header": fmt.Sprintf("[host.%q]\noverride_path = true\n[host.%q.header]\nX-Extra = \"yes\"\n",
			prefixed.URL+"/odd/place", prefixed.URL+"/odd/place"),
	} {
		t.Run(name, func(t *testing.T) {
			certs := t.TempDir()
			s := openStore(t, Config{CertsDirs: []string{t.TempDir(), certs}})
			// It is read at each pull, not at the start.
			hostsToml(t, certs, "docker.io", text)
			res, err := s.Pull(t.Context(), PullRequest{Ref: "x"})
			if err != nil || res.Image.Tags[0] != "docker.io/library/x:latest" {
				t.Errorf("%+v, %v", res, err)
			}
		})
	}
	certs := t.TempDir()
	s := openStore(t, Config{CertsDirs: []string{certs}})
	hostsToml(t, certs, "docker.io", "[host.broken\n")
	_, err := s.Pull(t.Context(), PullRequest{Ref: "x"})
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "hosts.toml") {
		t.Errorf("a hosts.toml that does not parse: %v", err)
	}
}

func TestPullErrors(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	i := newTestImage(asGzip, tarOf("a="+strings.Repeat("x", 10_000)))
	push(t, reg.URL, "x", "latest", i)
	layer := i.manifest.Layers[0].Digest.Encoded()
	answer := func(code int) *proxy {
		return newProxy(t, reg.URL, func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(code); return true })
	}
	flip := newProxy(t, reg.URL, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, layer) {
			return false
		}
		data := append([]byte{}, i.blobs[i.manifest.Layers[0].Digest]...)
		data[len(data)/2] ^= 1
		w.Write(data)
		return true
	})
	long := newProxy(t, reg.URL, func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, layer) {
			w.Write(append(i.blobs[i.manifest.Layers[0].Digest], 1, 2, 3))
		}
		return strings.HasSuffix(r.URL.Path, layer)
	})
	html := newProxy(t, reg.URL, func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<html>log in at the hotel</html>")
		return true
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	listener.Close()
	for name, c := range map[string]struct {
		ref  string
		is   func(error) bool
		text string
	}{
		"bad reference":  {"A B", errdefs.IsInvalidArgument, `parse reference "A B"`},
		"empty":          {"", errdefs.IsInvalidArgument, `parse reference ""`},
		"64 digits":      {strings.Repeat("a", 64), errdefs.IsInvalidArgument, "parse reference"},
		"bad digest":     {"x@sha256:abc", errdefs.IsInvalidArgument, "parse reference"},
		"no such image":  {reg.Host + "/nothing", errdefs.IsNotFound, "not found"},
		"no such digest": {reg.Host + "/x@sha256:" + strings.Repeat("a", 64), errdefs.IsNotFound, "not found"},
		"nobody listens": {closed + "/x", errdefs.IsUnavailable, "connection refused"},
		"forbidden":      {answer(http.StatusForbidden).host + "/x", errdefs.IsPermissionDenied, "403"},
		"internal error": {answer(http.StatusInternalServerError).host + "/x", errdefs.IsUnavailable, "500"},
		"overloaded":     {answer(http.StatusTooManyRequests).host + "/x", errdefs.IsUnavailable, "429"},
		"flipped bit":    {flip.host + "/x", errdefs.IsDataLoss, layer},
		"too many bytes": {long.host + "/x", errdefs.IsDataLoss, ""},
		"a web page":     {html.host + "/x", errdefs.IsUnavailable, "web page"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Config{})
			_, err := s.Pull(t.Context(), PullRequest{Ref: c.ref})
			if !c.is(err) || !strings.Contains(fmt.Sprint(err), c.text) {
				t.Errorf("%v", err)
			}
			if c.text != "" && err != nil && strings.Contains(c.ref, "127.0.0.1") && !strings.Contains(err.Error(), strings.Split(c.ref, "/")[0]) {
				t.Errorf("it does not say where: %v", err)
			}
			s.clean(t)
		})
	}
}

// TestBrokenConnection: a transfer that is cut goes on where it was.
func TestBrokenConnection(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	noise := make([]byte, 0, 3<<20)
	for n := range 3 << 20 / 8 {
		noise = fmt.Appendf(noise, "%08x", uint32(n)*2654435761)
	}
	i := newTestImage(asPlain, tarOf("a="+string(noise)))
	push(t, reg.URL, "cut", "latest", i)
	layer := i.manifest.Layers[0]
	var cuts, ranges atomic.Int32
	p := newProxy(t, reg.URL, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, layer.Digest.Encoded()) {
			return false
		}
		if r.Header.Get("Range") != "" {
			ranges.Add(1)
		}
		if cuts.Add(1) > 1 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(layer.Size))
		w.Write(i.blobs[layer.Digest][:layer.Size/2])
		return true // closes the connection in the middle
	})
	s := openStore(t, Config{})
	res := s.mustPull(t, p.host+"/cut")
	if s.files(t, res.Image)["a"] != string(noise) {
		t.Error("the file is another")
	}
	if ranges.Load() == 0 {
		t.Error("it began anew")
	}
}
