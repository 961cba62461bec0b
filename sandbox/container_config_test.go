package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A profile is read in whichever way it is named, and nothing but a file of a
// fair size is read at all.
func TestSeccompProfile(t *testing.T) {
	dir := t.TempDir()
	good, huge, pipe := filepath.Join(dir, "good"), filepath.Join(dir, "huge"), filepath.Join(dir, "pipe")
	for path, text := range map[string]string{good: "{}", huge: strings.Repeat(" ", maxSeccompProfile+1)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	named := func(path string) *runtime.LinuxContainerSecurityContext {
		return &runtime.LinuxContainerSecurityContext{
			Seccomp: &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Localhost, LocalhostRef: path},
		}
	}
	for name, c := range map[string]struct {
		sc   *runtime.LinuxContainerSecurityContext
		want string
	}{
		"none": {nil, ""}, "named": {named(good), "{}"}, "named in the old way": {&runtime.LinuxContainerSecurityContext{SeccompProfilePath: "localhost/" + good}, "{}"}, //nolint:staticcheck // the old way is the point
	} {
		data, err := seccompProfile(&runtime.ContainerConfig{Linux: &runtime.LinuxContainerConfig{SecurityContext: c.sc}})
		if err != nil || string(data) != c.want {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	for _, path := range []string{huge, pipe, dir, filepath.Join(dir, "missing"), filepath.Join(good, "below"), "good"} {
		_, err := seccompProfile(&runtime.ContainerConfig{Linux: &runtime.LinuxContainerConfig{SecurityContext: named(path)}})
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "linux.security_context.seccomp.localhost_ref") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
