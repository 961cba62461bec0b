package sandbox

import (
	"testing"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What a runtime handler sets holds for its pods' containers alone.
func TestHandlerDefaults(t *testing.T) {
	_, m := start(t)
	m.cfg.Handlers = map[string]Handler{"careful": {PidsLimit: 7, NoHostDevices: true}}
	m.cfg.PidsLimit = 100
	for handler, want := range map[string]int64{"": 100, "careful": 7} {
		pod := podRequest("web" + handler)
		pod.Handler = handler
		pod.Config.Linux = &runtime.LinuxPodSandboxConfig{SecurityContext: &runtime.LinuxSandboxSecurityContext{Privileged: true}}
		id, err := m.RunPod(t.Context(), pod)
		if err != nil {
			t.Fatal(err)
		}
		req := containerRequest(id, "c")
		req.Config.Linux = &runtime.LinuxContainerConfig{SecurityContext: &runtime.LinuxContainerSecurityContext{Privileged: true}}
		cid, err := m.CreateContainer(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		c, err := m.findContainer(cid)
		if err != nil {
			t.Fatal(err)
		}
		spec := c.takePrepared()
		if pids := spec.Linux.Resources.Pids; pids == nil || *pids.Limit != want {
			t.Errorf("handler %q: %+v", handler, pids)
		}
		if all := spec.Linux.Resources.Devices[0].Allow; all != (handler == "") {
			t.Errorf("handler %q: all devices allowed: %t", handler, all)
		}
	}
}
