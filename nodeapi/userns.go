package nodeapi

import (
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// User namespaces get ranges of the host's IDs from the upper half of all,
// which neither people nor kubelet, whose ranges begin at 65536, give away.
const (
	firstUser  = 1 << 31
	userBlock  = 1 << 16
	userBlocks = firstUser/userBlock - 1 // the last ID is none
	// leastUsers has room for the users and groups of common images.
	leastUsers = 1 << 10
)

// userRange reads --userns: how many IDs the container's own user namespace
// has, zero for the host's.
func userRange(mode string) (size uint32, err error) {
	wrong := failf(errdefs.ErrInvalidArgument, "invalid userns mode: %q: it is \"host\", \"private\", \"auto\" or \"auto:size=N\"", mode)
	kind, options, limited := strings.Cut(mode, ":")
	switch kind {
	case "", "host":
		if limited {
			return 0, wrong
		}
		return 0, nil
	case "private", "auto":
	default:
		return 0, wrong
	}
	if !limited {
		return userBlock, nil
	}
	text, ok := strings.CutPrefix(options, "size=")
	n, err := strconv.ParseUint(text, 10, 32)
	if !ok || err != nil {
		return 0, wrong
	}
	if n < leastUsers || n > userBlock*userBlocks {
		return 0, failf(errdefs.ErrInvalidArgument, "invalid userns mode: %q: a user namespace has %d to %d IDs", mode, leastUsers, userBlock*userBlocks)
	}
	return uint32(n), nil
}

// validateUsers refuses what a user namespace cannot go with, in docker's
// words where docker refuses it too.
func validateUsers(spec *nodev1.ContainerSpec) error {
	sec := spec.GetSecurity()
	size, err := userRange(sec.GetUserns())
	if err != nil || size == 0 {
		return err
	}
	mode := spec.GetNetwork().GetMode()
	switch {
	case sec.GetPrivileged():
		return failf(errdefs.ErrInvalidArgument, "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode")
	case mode == networkHost:
		return failf(errdefs.ErrInvalidArgument, "cannot share the host's network namespace when user namespaces are enabled")
	case sec.GetHostPid():
		return failf(errdefs.ErrInvalidArgument, "cannot share the host PID namespace when user namespaces are enabled")
	case sec.GetHostIpc():
		return failf(errdefs.ErrInvalidArgument, "cannot share the host IPC namespace when user namespaces are enabled")
	case sec.GetHostUts():
		return failf(errdefs.ErrInvalidArgument, "cannot share the host UTS namespace when user namespaces are enabled")
	case strings.HasPrefix(mode, networkContainer), sec.GetPidContainer() != "", sec.GetIpcContainer() != "":
		return failf(errdefs.ErrInvalidArgument, "cannot share the namespaces of another container when user namespaces are enabled")
	}
	return nil
}

// withUsers adds the user namespace to namespaces.
func withUsers(o *runtime.NamespaceOption, users *runtime.UserNamespace) *runtime.NamespaceOption {
	o.UsernsOptions = users
	return o
}

// namespaceOptions are those of the pod.
func (m *making) namespaceOptions() *runtime.NamespaceOption {
	return withUsers(m.networking.applyTo(namespaceOptions(m.spec)), m.users)
}

// reserveUsers takes IDs of the host for a user namespace; nil is for none.
// The caller gives them back with releaseUsers once the pod exists or is not
// made.
func (s *Server) reserveUsers(mode string) (*runtime.UserNamespace, error) {
	size, err := userRange(mode)
	if err != nil || size == 0 {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := map[uint32]bool{}
	take := func(users *runtime.UserNamespace) {
		for _, m := range users.GetUids() {
			if m.GetHostId() < firstUser || m.GetLength() == 0 {
				continue
			}
			for at := (m.GetHostId() - firstUser) / userBlock; at <= (m.GetHostId()-firstUser+m.GetLength()-1)/userBlock; at++ {
				taken[at] = true
			}
		}
	}
	for _, pod := range s.sandboxes.Pods() {
		take(pod.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions())
	}
	for users := range s.users {
		take(users)
	}
	blocks := (size + userBlock - 1) / userBlock
	for at, free := uint32(0), uint32(0); at < userBlocks; at++ {
		if free++; taken[at] {
			free = 0
		}
		if free == blocks {
			users := mapping(firstUser+(at+1-blocks)*userBlock, size)
			s.users[users] = true
			return users, nil
		}
	}
	return nil, failf(errdefs.ErrResourceExhausted, "no range of %d user IDs is free", size)
}

// mapping is a user namespace whose IDs are the host's from the first on.
func mapping(first, size uint32) *runtime.UserNamespace {
	ids := func() []*runtime.IDMapping { return []*runtime.IDMapping{{HostId: first, Length: size}} }
	return &runtime.UserNamespace{Mode: runtime.NamespaceMode_POD, Uids: ids(), Gids: ids()}
}

// releaseUsers gives back what reserveUsers took.
func (s *Server) releaseUsers(users *runtime.UserNamespace) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.users, users)
}
