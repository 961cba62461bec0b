package nodeapi

import (
	"github.com/nodeagent/nodeagent/sandbox"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// overflowID is the owner of what has none in a user namespace, as the kernel
// shows it.
const overflowID = 65534

// ownersOf translates owners of files from those on the node to those that a
// container sees; nil where they are the same.
func (s *Server) ownersOf(c sandbox.Container) func(uid, gid uint32) (int, int) {
	pod, err := s.sandboxes.Pod(c.PodID)
	if err != nil {
		return nil
	}
	options := pod.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
	if options.GetMode() != runtime.NamespaceMode_POD || len(options.GetUids()) == 0 {
		return nil
	}
	uids, gids := options.GetUids(), options.GetGids()
	return func(uid, gid uint32) (int, int) { return unmapped(uids, uid), unmapped(gids, gid) }
}

func unmapped(mappings []*runtime.IDMapping, id uint32) int {
	for _, m := range mappings {
		if id >= m.GetHostId() && id-m.GetHostId() < m.GetLength() {
			return int(m.GetContainerId() + id - m.GetHostId())
		}
	}
	return overflowID
}
