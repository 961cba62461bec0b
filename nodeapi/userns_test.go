package nodeapi

import (
	"strings"
	"testing"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestUserRange(t *testing.T) {
	for mode, want := range map[string]uint32{
		"": 0, "host": 0, "private": 65536, "auto": 65536, "auto:size=2000": 2000, "private:size=70000": 70000,
	} {
		if got, err := userRange(mode); got != want || err != nil {
			t.Errorf("%q: %d %v", mode, got, err)
		}
	}
	for _, mode := range []string{"host:size=2000", "keep-id", "auto:", "auto:size=", "auto:size=1", "auto:size=4294967295", "auto:gid=5", "container:x"} {
		if _, err := userRange(mode); err == nil {
			t.Errorf("%q is taken", mode)
		}
	}
}

func FuzzUserRange(f *testing.F) {
	for _, mode := range []string{"", "host", "auto:size=65536", "auto:size=-1", "private:size=99999999999"} {
		f.Add(mode)
	}
	f.Fuzz(func(t *testing.T, mode string) {
		if size, err := userRange(mode); err == nil && size != 0 && size < leastUsers {
			t.Errorf("%q: %d", mode, size)
		}
	})
}

// Ranges that are in use are left out, also those of containers being made.
func TestReserveUsers(t *testing.T) {
	n := newNode(t)
	var made []*runtime.UserNamespace
	for _, step := range []struct {
		mode  string
		first uint32
	}{{"auto", 1 << 31}, {"auto:size=65537", 1<<31 + 1<<16}, {"auto", 1<<31 + 3<<16}} {
		users, err := n.server.reserveUsers(step.mode)
		if err != nil || users.GetUids()[0].GetHostId() != step.first || users.GetGids()[0].GetHostId() != step.first {
			t.Fatalf("%s: %v %v", step.mode, users, err)
		}
		made = append(made, users)
	}
	n.server.releaseUsers(made[1])
	users, err := n.server.reserveUsers("private:size=2000")
	if err != nil || users.GetUids()[0].GetHostId() != 1<<31+1<<16 || users.GetUids()[0].GetLength() != 2000 {
		t.Errorf("%v %v", users, err)
	}
	if users, err := n.server.reserveUsers("host"); users != nil || err != nil {
		t.Errorf("%v %v", users, err)
	}
	if _, err := n.server.reserveUsers("auto:size=2147418112"); err == nil || !strings.Contains(err.Error(), "no range of 2147418112 user IDs is free") {
		t.Error(err)
	}
}

func TestOwnersInUserNamespaces(t *testing.T) {
	ids := []*runtime.IDMapping{{HostId: 1 << 31, Length: 65536}}
	for id, want := range map[int]int{0: 1 << 31, 5: 1<<31 + 5, 65535: 1<<31 + 65535, 65536: 1 << 31, -1: 1 << 31} {
		if got := mapped(ids, id); got != want {
			t.Errorf("%d: %d", id, got)
		}
	}
	if unmapped(ids, 1<<31+7) != 7 || unmapped(ids, 7) != overflowID {
		t.Error("translated wrongly")
	}
}

func TestUsersAndNamespaces(t *testing.T) {
	for _, sec := range []*nodev1.Security{
		{Privileged: true}, {HostPid: true}, {HostIpc: true}, {HostUts: true}, {PidContainer: "x"}, {IpcContainer: "x"},
	} {
		if err := validateUsers(&nodev1.ContainerSpec{Security: sec}); err != nil {
			t.Errorf("%v: %v", sec, err)
		}
		sec.Userns = "auto"
		if err := validateUsers(&nodev1.ContainerSpec{Security: sec}); err == nil {
			t.Errorf("%v is taken", sec)
		}
	}
	for _, mode := range []string{"host", "container:x"} {
		spec := &nodev1.ContainerSpec{Security: &nodev1.Security{Userns: "auto"}, Network: &nodev1.Network{Mode: mode}}
		if err := validateUsers(spec); err == nil {
			t.Errorf("%s is taken", mode)
		}
	}
}
