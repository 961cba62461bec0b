package cve

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// suite is the testing.TB of what all tests share: it fails the test that runs, and cleans up after the last one.
type suite struct {
	testing.TB
	cleanups []func()
	agent    *testenv.AgentProcess
	registry *registry
	pods     int // that were ever configured
}

func (s *suite) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

func (s *suite) TempDir() string {
	dir, err := os.MkdirTemp("", "na-cve-")
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// finish cleans up and reports whether that went well.
func (s *suite) finish(failed bool) bool {
	end := &afterwards{failed: failed}
	s.TB = end
	for i := len(s.cleanups) - 1; i >= 0; i-- {
		s.cleanups[i]()
	}
	return end.failed == failed
}

// afterwards is the testing.TB of what happens when no test runs any more.
type afterwards struct {
	testing.TB
	failed bool
}

func (a *afterwards) Helper()                           {}
func (a *afterwards) Failed() bool                      { return a.failed }
func (a *afterwards) Log(args ...any)                   { fmt.Fprintln(os.Stderr, args...) }
func (a *afterwards) Logf(format string, args ...any)   { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (a *afterwards) Error(args ...any)                 { a.failed = true; a.Log(args...) }
func (a *afterwards) Errorf(format string, args ...any) { a.failed = true; a.Logf(format, args...) }
func (a *afterwards) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (a *afterwards) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

var shared suite

func TestMain(m *testing.M) {
	if mode := os.Getenv(probeMode); mode != "" {
		os.Exit(probe(mode))
	}
	code := m.Run()
	if !shared.finish(code != 0) {
		code = 1
	}
	os.Exit(code)
}

// newNode gives the agent that the tests share. It begins a test: without root the test is skipped. The pods that the
// test makes through it are removed at its end.
func newNode(t *testing.T) *node {
	t.Helper()
	testenv.Root(t)
	if testing.Short() {
		t.Skip("starts an agent and pulls images")
	}
	shared.TB = t
	if shared.agent == nil {
		testenv.Leaks(&shared)
		shared.registry = newRegistry(&shared)
		shared.agent = testenv.Agent(&shared, testenv.AgentOptions{Registry: shared.registry.server})
	}
	n := &node{Client: pods.New(t, shared.agent), t: t, logs: filepath.Join(shared.agent.Dir, "logs")}
	n.Pull(images.Busybox)
	t.Cleanup(n.RemovePods)
	return n
}
