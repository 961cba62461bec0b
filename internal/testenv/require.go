package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Root skips the test when it does not run as root, or is asked not to act as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Getenv("NODEAGENT_TEST_ROOT") == "no" {
		t.Skip("needs root, and NODEAGENT_TEST_ROOT=no")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// Repository is the root folder of the source tree.
func Repository() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// CacheDir is the folder inside the source tree, ignored by git, that is kept between runs.
func CacheDir() string { return filepath.Join(Repository(), ".cache") }

// Binary returns the path of a program that `make build` builds, such as nodeagent.
func Binary(t testing.TB, name string) string {
	t.Helper()
	return need(t, filepath.Join(Repository(), "bin", name), "make build")
}

// Tool returns the path of a program that `make tools` or `make peers` builds, such as crictl or critest.
func Tool(t testing.TB, name string) string {
	t.Helper()
	return need(t, filepath.Join(CacheDir(), "bin", name), "make tools peers")
}

// CNIPlugins returns a folder with the reference plugins bridge, host-local, portmap, loopback and firewall.
func CNIPlugins(t testing.TB) string {
	t.Helper()
	return need(t, filepath.Join(CacheDir(), "bin", "cni"), "make tools")
}

// Program returns the path of an installed program; pkg is the package that brings it.
func Program(t testing.TB, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, name, "apt-get install "+pkg)
	}
	return path
}

func need(t testing.TB, path, remedy string) string {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		missing(t, path, remedy)
	}
	return path
}

func missing(t testing.TB, what, remedy string) {
	t.Helper()
	if os.Getenv("NODEAGENT_TEST_REQUIRE") == "yes" {
		t.Fatalf("%s is missing: %s", what, remedy)
	}
	t.Skipf("%s is missing: %s", what, remedy)
}
