package cdidevice

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const vendorFile = `{"cdiVersion": "0.6.0", "kind": "vendor.com/thing", "devices": [{"name": "one", "containerEdits": {
	"env": ["THING=1"], "mounts": [{"hostPath": "/opt/thing", "containerPath": "/opt/thing", "options": ["ro", "rbind"]}]}}]}`

func TestEdit(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "vendor.json"), []byte(vendorFile), 0o600); err != nil {
		t.Fatal(err)
	}
	if Edit([]string{dir}, nil) != nil {
		t.Error("an edit without devices")
	}
	s := &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{}}
	if err := Edit([]string{dir}, []*runtime.CDIDevice{{Name: "vendor.com/thing=one"}})(s); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(s.Process.Env, "THING=1") || len(s.Mounts) != 1 {
		t.Errorf("%+v, %+v", s.Process.Env, s.Mounts)
	}
}

func TestEditRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bad.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vendor.com/thing=none", "rubbish", ""} {
		err := Edit([]string{dir}, []*runtime.CDIDevice{{Name: name}})(&specs.Spec{Process: &specs.Process{}})
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "CDI_devices[0].name") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestList(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"vendor.json": vendorFile, "bad.json": "{"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := List([]string{dir, filepath.Join(dir, "missing")})
	if err != nil || !slices.Equal(got, []string{"vendor.com/thing=one"}) {
		t.Errorf("%q %v", got, err)
	}
}
