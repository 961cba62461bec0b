package testenv

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/testenv/images"
)

// RegistryServer is a running registry of the distribution's docker-registry package on a loopback port.
type RegistryServer struct {
	// Host is address and port, as it stands in an image reference.
	Host string
	// URL is the same with the scheme.
	URL string
	// CertsDir holds the hosts.toml files that send the registries which the test images name to this one.
	CertsDir string
}

// Registry starts a registry that holds the test images. Tests must not push to it: its storage is kept between runs.
func Registry(t testing.TB) *RegistryServer {
	t.Helper()
	Program(t, "docker-registry", "docker-registry")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cache := filepath.Join(CacheDir(), "testimages")
	layout, err := images.Build(ctx, cache)
	if err != nil {
		t.Fatal(err)
	}
	key, err := images.Key()
	if err != nil {
		t.Fatal(err)
	}
	return StoredRegistry(t, filepath.Join(cache, "registry-"+key), func(url string) error { return images.Push(ctx, layout, url) })
}

// StoredRegistry starts a registry whose storage is kept between runs. When the folder is new, fill is called to push
// to it. Tests must not.
func StoredRegistry(t testing.TB, storage string, fill func(url string) error) *RegistryServer {
	t.Helper()
	Program(t, "docker-registry", "docker-registry")
	server := startRegistry(t, storage)
	filled := filepath.Join(storage, "filled")
	if _, err := os.Stat(filled); err == nil {
		return server
	}
	if err := fill(server.URL); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filled, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return server
}

// EmptyRegistry starts a registry of this test's own, for pushing to.
func EmptyRegistry(t testing.TB) *RegistryServer {
	t.Helper()
	Program(t, "docker-registry", "docker-registry")
	return startRegistry(t, t.TempDir())
}

// The user of a PrivateRegistry.
const (
	PrivateUser     = "me"
	PrivatePassword = "secret"
	// privateUsers is the file of users; the password is hashed by bcrypt.
	privateUsers = PrivateUser + ":$2a$05$vByd3mJgCVSLGdrbs2Vnyu3ZZQxwjtnKo7YlatlVkQapyCLN.qaLa\n"
)

// PrivateRegistry starts a registry of this test's own that serves one user, by basic authentication.
func PrivateRegistry(t testing.TB) *RegistryServer {
	t.Helper()
	Program(t, "docker-registry", "docker-registry")
	users := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(users, []byte(privateUsers), 0o600); err != nil {
		t.Fatal(err)
	}
	return startRegistry(t, t.TempDir(), fmt.Sprintf("auth:\n  htpasswd:\n    realm: tests\n    path: %s\n", users))
}

const registryConfig = `version: 0.1
log:
  level: info
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: %s
  delete:
    enabled: true
  maintenance:
    uploadpurging:
      enabled: false
http:
  addr: 127.0.0.1:0
`

// listening is what the registry logs once it has its port.
var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)

func startRegistry(t testing.TB, storage string, more ...string) *RegistryServer {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, append(fmt.Appendf(nil, registryConfig, storage), strings.Join(more, "")...), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", config)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		readAddress(stderr, address)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-drained
		_ = cmd.Wait()
	})
	select {
	case host := <-address:
		server := &RegistryServer{Host: host, URL: "http://" + host, CertsDir: filepath.Join(dir, "certs.d")}
		if err := images.WriteMirrors(server.CertsDir, server.URL); err != nil {
			t.Fatal(err)
		}
		return server
	case <-drained:
		t.Fatal("the registry ended before it listened")
	case <-time.After(30 * time.Second):
		t.Fatal("the registry did not listen within 30 s")
	}
	return nil
}

// readAddress sends the address that the log names and reads on, so that the registry never blocks on its log.
func readAddress(log io.Reader, address chan<- string) {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if found := listening.FindStringSubmatch(lines.Text()); found != nil {
			select {
			case address <- found[1]:
			default:
			}
		}
	}
	_, _ = io.Copy(io.Discard, log)
}
