package cgroups

import (
	"os"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// Warming leaves this process where it is.
func TestWarm(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	m, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(m.own); err != nil {
		t.Error(err)
	}
	for range 10 {
		m.Warm()
	}
	m.Close()
	if after, err := os.ReadFile("/proc/self/cgroup"); err != nil || string(after) != string(before) {
		t.Errorf("was in\n%s, is in\n%s, %v", before, after, err)
	}
}
