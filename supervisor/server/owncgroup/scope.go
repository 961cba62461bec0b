package owncgroup

import (
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
)

const (
	sliceSuffix = ".slice"
	scopeSuffix = ".scope"
)

// IsScope tells whether the cgroup at path is one that systemd makes for
// processes that it did not start.
func IsScope(path string) bool { return strings.HasSuffix(path, scopeSuffix) }

// EnterScope has systemd make a scope with a process in it; see
// systemd.scope(5). dir is its folder, "/a.slice/a-b.slice/x-y.scope". systemd
// takes it away when nothing is left in it. It takes as long as D-Bus does.
func EnterScope(dir string, pid int) error {
	prefix, name, ok := strings.Cut(strings.TrimSuffix(path.Base(dir), scopeSuffix), "-")
	slice := path.Base(path.Dir(dir))
	if !ok || !IsScope(dir) || !strings.HasSuffix(slice, sliceSuffix) {
		return fmt.Errorf("%q is not a scope in a slice", dir)
	}
	unlimited := int64(-1) // or systemd sets DefaultTasksMax
	res := &cgroups.Resources{SkipDevices: true, PidsLimit: &unlimited}
	m, err := manager.New(&cgroups.Cgroup{Name: name, ScopePrefix: prefix, Parent: slice, Systemd: true, Resources: res})
	if err == nil {
		err = m.Apply(pid)
	}
	if err == nil {
		err = m.Set(res)
	}
	if err != nil {
		return fmt.Errorf("enter scope %s: %w", path.Base(dir), err)
	}
	return nil
}
