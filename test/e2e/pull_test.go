package e2e

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

// forward is an HTTP proxy that reaches one registry, whatever host it is asked for.
type forward struct {
	*httptest.Server
	mu    sync.Mutex
	hosts []string
}

func newForward(t *testing.T, registry string) *forward {
	t.Helper()
	target, err := url.Parse(registry)
	if err != nil {
		t.Fatal(err)
	}
	f := &forward{}
	back := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.hosts = append(f.hosts, r.Host)
		f.mu.Unlock()
		back.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *forward) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hosts
}

// certsFor writes a certs.d folder that has registries reached by plain HTTP.
func certsFor(t *testing.T, hosts ...string) *testenv.RegistryServer {
	t.Helper()
	dir := t.TempDir()
	for _, host := range hosts {
		if err := os.Mkdir(filepath.Join(dir, host), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, host, "hosts.toml"), fmt.Appendf(nil, "server = \"http://%s\"\n", host), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &testenv.RegistryServer{CertsDir: dir}
}

// The agent pulls by the proxy of its environment, kubelet's images and people's alike, but for the networks that
// NO_PROXY names; and nodectl tells which.
func TestPullByProxy(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	registry := testenv.Registry(t)
	proxy := newForward(t, registry.URL)
	agent := testenv.Agent(t, testenv.AgentOptions{
		Registry: certsFor(t, "far.invalid:5000", "192.0.2.1:5000"),
		Env:      []string{"HTTP_PROXY=" + strings.Replace(proxy.URL, "://", "://user:hidden@", 1), "NO_PROXY=192.0.2.0/24"},
	})
	_, name, _ := strings.Cut(images.Busybox, "/")
	if _, err := agent.Images().PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "far.invalid:5000/" + name}}); err != nil {
		t.Fatal(err)
	}
	if n := len(proxy.asked()); n < 3 {
		t.Errorf("the proxy saw %d requests", n)
	}
	for ref, want := range map[string]string{"far.invalid:5000/" + name: "Proxy: http://user:xxxxx@", "192.0.2.1:5000/x": "Proxy: none"} {
		out := agent.Nodectl("registry", "explain", ref)
		if !strings.Contains(out.Stdout, want) || strings.Contains(out.Stdout, "hidden") {
			t.Errorf("explain %s: %s%s", ref, out.Stdout, out.Stderr)
		}
	}
	for _, host := range proxy.asked() {
		if host != "far.invalid:5000" {
			t.Errorf("the proxy was asked for %s", host)
		}
	}
}

// Without credentials of the caller's the agent takes those of its own user's docker configuration, from a helper too.
func TestPullWithDockerConfig(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	registry := testenv.Registry(t)
	target, err := url.Parse(registry.URL)
	if err != nil {
		t.Fatal(err)
	}
	back := httputil.NewSingleHostReverseProxy(target)
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="door"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		back.ServeHTTP(w, r)
	}))
	defer door.Close()
	host := strings.TrimPrefix(door.URL, "http://")
	_, name, _ := strings.Cut(images.Busybox, "/")
	dir := t.TempDir()
	agent := testenv.Agent(t, testenv.AgentOptions{
		Registry: &testenv.RegistryServer{CertsDir: t.TempDir()},
		Env:      []string{"DOCKER_CONFIG=" + dir, "PATH=" + dir + ":" + os.Getenv("PATH")},
	})
	pull := func() error {
		_, err := agent.Images().PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: host + "/" + name}})
		return err
	}
	if err := pull(); err == nil || !strings.Contains(err.Error(), "Unauthenticated") {
		t.Errorf("without credentials: %v", err)
	}
	helper := filepath.Join(dir, "docker-credential-test")
	if err := os.WriteFile(helper, []byte("#!/bin/sh\necho '{\"Username\": \"me\", \"Secret\": \"secret\"}'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for how, config := range map[string]string{
		"helper": `{"credHelpers": {"` + host + `": "test"}}`,
		"file":   `{"auths": {"` + host + `": {"auth": "` + base64.StdEncoding.EncodeToString([]byte("me:secret")) + `"}}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := pull(); err != nil {
			t.Errorf("%s: %v", how, err)
		}
	}
}

// Prometheus finds how long calls and pulls took.
func TestMetrics(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	listener := httptest.NewServer(nil)
	address := listener.Listener.Addr().String()
	listener.Close()
	agent := testenv.Agent(t, testenv.AgentOptions{Registry: testenv.Registry(t), Args: []string{"--metrics-address", address}})
	if _, err := agent.Images().PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: images.Busybox}}); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`nodeagent_call_seconds_count{code="OK",method="PullImage",service="runtime.v1.ImageService"} 1`,
		`nodeagent_image_pull_seconds_count{result="pulled"} 1`, "nodeagent_image_pulls 0", "nodeagent_image_received_bytes_total ", "go_goroutines ",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is not among the metrics:\n%s", want, text)
		}
	}
}
