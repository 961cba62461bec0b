package cgroups

import (
	"fmt"
	"os"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

func TestHold(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	m, err := New(Config{Driver: Cgroupfs})
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/nodeagent-test-hold-%d", os.Getpid())
	release, err := m.Hold(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Hold(t.Context(), path); !errdefs.IsAlreadyExists(err) {
		t.Errorf("a second holder: %v", err)
	}
	if err := m.Create(t.Context(), path+"/below", nil); err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil || !m.Exists(path+"/below") {
		t.Errorf("release of what is in use: %v", err)
	}
	if err := m.Remove(t.Context(), path+"/below"); err != nil {
		t.Fatal(err)
	}
	if release, err = m.Hold(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil || m.Exists(path) {
		t.Errorf("release of what is empty: %v", err)
	}
}
