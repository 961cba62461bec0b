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
	uids, gids := s.mappingsOf(c)
	if len(uids) == 0 {
		return nil
	}
	return func(uid, gid uint32) (int, int) { return unmapped(uids, uid), unmapped(gids, gid) }
}

// hostOwnersOf translates the other way; an owner that the container does not
// have becomes its root.
func (s *Server) hostOwnersOf(c sandbox.Container) func(uid, gid int) (int, int) {
	uids, gids := s.mappingsOf(c)
	if len(uids) == 0 {
		return nil
	}
	return func(uid, gid int) (int, int) { return mapped(uids, uid), mapped(gids, gid) }
}

// mappingsOf are those of a container's user namespace; none without one.
func (s *Server) mappingsOf(c sandbox.Container) (uids, gids []*runtime.IDMapping) {
	pod, err := s.sandboxes.Pod(c.PodID)
	if err != nil {
		return nil, nil
	}
	options := pod.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions()
	if options.GetMode() != runtime.NamespaceMode_POD || len(options.GetUids()) == 0 {
		return nil, nil
	}
	return options.GetUids(), options.GetGids()
}

func mapped(mappings []*runtime.IDMapping, id int) int {
	for _, m := range mappings {
		first := int(m.GetContainerId())
		if id >= first && id-first < int(m.GetLength()) {
			return int(m.GetHostId()) + id - first
		}
	}
	return int(mappings[0].GetHostId())
}

func unmapped(mappings []*runtime.IDMapping, id uint32) int {
	for _, m := range mappings {
		if id >= m.GetHostId() && id-m.GetHostId() < m.GetLength() {
			return int(m.GetContainerId() + id - m.GetHostId())
		}
	}
	return overflowID
}
