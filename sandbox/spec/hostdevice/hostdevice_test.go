package hostdevice

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/sandbox/spec"
)

// tree makes a folder with devices in it.
func tree(t *testing.T) string {
	t.Helper()
	testenv.Root(t)
	dir := t.TempDir()
	for _, d := range []string{"pts", "sub/deep"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]uint32{"zero": unix.S_IFCHR | 0o640, "sub/deep/null": unix.S_IFCHR | 0o600, "pts/0": unix.S_IFCHR | 0o600} {
		if err := unix.Mknod(filepath.Join(dir, name), mode, int(unix.Mkdev(1, 5))); err != nil {
			t.Skipf("cannot make devices here: %v", err)
		}
		if err := os.Chmod(filepath.Join(dir, name), os.FileMode(mode&0o777)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("zero", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev", filepath.Join(dir, "sub", "out")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestList(t *testing.T) {
	dir := tree(t)
	got, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []spec.Device{
		{ContainerPath: dir + "/sub/deep/null", HostPath: dir + "/sub/deep/null", Type: "c", Major: 1, Minor: 5, Mode: 0o600, Permissions: "rwm"},
		{ContainerPath: dir + "/zero", HostPath: dir + "/zero", Type: "c", Major: 1, Minor: 5, Mode: 0o640, Permissions: "rwm"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := List(dir + "/none"); err == nil {
		t.Error("a missing folder is no error")
	}
}

func TestResolve(t *testing.T) {
	dir := tree(t)
	got, err := Resolve([]*runtime.Device{
		{HostPath: dir + "/link", ContainerPath: "/dev/z", Permissions: "r"},
		{HostPath: dir + "/sub", ContainerPath: "/dev/sub"},
		{HostPath: dir + "/zero"},
		{HostPath: dir, ContainerPath: "/dev", Permissions: "r"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []spec.Device{
		{ContainerPath: "/dev/z", HostPath: dir + "/zero", Type: "c", Major: 1, Minor: 5, Mode: 0o640, Permissions: "r"},
		{ContainerPath: "/dev/sub/deep/null", HostPath: dir + "/sub/deep/null", Type: "c", Major: 1, Minor: 5, Mode: 0o600, Permissions: "rwm"},
		{ContainerPath: dir + "/zero", HostPath: dir + "/zero", Type: "c", Major: 1, Minor: 5, Mode: 0o640, Permissions: "rwm"},
		{ContainerPath: "/dev/sub/deep/null", HostPath: dir + "/sub/deep/null", Type: "c", Major: 1, Minor: 5, Mode: 0o600, Permissions: "r"},
		{ContainerPath: "/dev/zero", HostPath: dir + "/zero", Type: "c", Major: 1, Minor: 5, Mode: 0o640, Permissions: "r"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestResolveRefuses(t *testing.T) {
	dir := tree(t)
	for _, d := range []*runtime.Device{
		{HostPath: dir + "/file"}, {HostPath: dir + "/none"}, {HostPath: "relative"}, {HostPath: dir + "/zero", Permissions: "x"},
		{HostPath: dir + "/zero", ContainerPath: "z"},
	} {
		_, err := Resolve([]*runtime.Device{d})
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "devices[0].") {
			t.Errorf("%v: %v", d, err)
		}
	}
}
