package nodeapi

import (
	"errors"
	"testing"
)

func TestCreateFailure(t *testing.T) {
	m := &making{name: "web", podID: "77"}
	for ours, want := range map[string]string{
		`create container: create container web in pod 77: linux.security_context.run_as_username: user: no user "x" in the image's /etc/passwd`: "unable to find user x: no matching entries in passwd file",
		`create container web in pod 77: user: user: unable to find group y: no group "y" in the image's /etc/group`:                             "unable to find group y: no matching entries in group file",
		`create container web in pod 77: user: user: no group "y" in the image's /etc/group`:                                                     "unable to find group y: no matching entries in group file",
		`c in pod 77: specification: linux.security_context.capabilities.add_capabilities[0]: there is no capability "NOPE"`:                     `invalid CapAdd: unknown capability: "CAP_NOPE"`,
		`c in pod 77: specification: linux.security_context.capabilities.drop_capabilities[10]: there is no capability "CAP_NOPE"`:               `invalid CapDrop: unknown capability: "CAP_NOPE"`,
		`c in pod 77: specification: devices[0].host_path: lstat /dev/nope: no such file or directory`:                                           `error gathering device information while adding custom device "/dev/nope": no such file or directory`,
		`run pod: run pod nodectl/web: linux.sysctls[kernel.hostname]: is not kept apart by a namespace`:                                         `sysctl "kernel.hostname" is not in a separate kernel namespace`,
		`something else`: "",
	} {
		if got, ok := m.createFailure(errors.New(ours)); got != want || ok != (want != "") {
			t.Errorf("%s: %q", ours, got)
		}
	}
}
