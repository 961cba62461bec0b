package sandbox

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// With systemd a pod's cgroup is a slice, of which the folder is kept, however it was named.
func TestPlacePodInSlices(t *testing.T) {
	m := &Manager{cfg: Config{SystemdCgroup: true, CgroupParent: "/nodeagent.slice"}}
	id := strings.Repeat("ab", idBytes)
	for _, c := range []struct {
		owner        Owner
		parent, want string
		owns         bool
	}{
		{OwnerCRI, "", "/nodeagent.slice/nodeagent-pods.slice/nodeagent-pods-" + id + ".slice", true},
		{OwnerNodectl, "", "/nodeagent.slice/nodeagent-pods.slice/nodeagent-pods-" + id + ".slice", true},
		{OwnerCRI, "kubepods-burstable-pod1.slice", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice", false},
		{OwnerCRI, "/kubepods.slice/kubepods-pod1.slice", "/kubepods.slice/kubepods-pod1.slice", false},
		{OwnerNodectl, "a-b.slice", "/a.slice/a-b.slice/a-b-" + id + ".slice", true},
	} {
		s := &podState{Pod: Pod{ID: id, Owner: c.owner, Config: &runtime.PodSandboxConfig{Linux: &runtime.LinuxPodSandboxConfig{CgroupParent: c.parent}}}}
		if err := m.placePod(s); err != nil || s.CgroupPath != c.want || s.OwnsCgroup != c.owns {
			t.Errorf("%s %q: %s, %v, %v; want %s", c.owner, c.parent, s.CgroupPath, s.OwnsCgroup, err, c.want)
		}
	}
	for _, parent := range []string{"/kubepods/pod1", "a--b.slice", "-.slice", "/a-b.slice", "x/a.slice"} {
		s := &podState{Pod: Pod{ID: id, Config: &runtime.PodSandboxConfig{Linux: &runtime.LinuxPodSandboxConfig{CgroupParent: parent}}}}
		if err := m.placePod(s); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "linux.cgroup_parent") {
			t.Errorf("%q: %v", parent, err)
		}
	}
}
