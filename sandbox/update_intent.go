package sandbox

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/sandbox/spec"
)

// updateIntent is recorded before limits are changed, so that an agent that is
// killed before it has recorded the new ones sets the former back when it
// starts: what the kernel holds is then what the status says.
type updateIntent struct {
	// Former are runtime.LinuxContainerResources in protobuf.
	Former []byte
	// Score is the oom_score_adj that processes may have got already.
	Score int64 `json:",omitempty"`
}

func newUpdateIntent(former, next *runtime.LinuxContainerResources) (*updateIntent, error) {
	data, err := proto.Marshal(former)
	if err != nil {
		return nil, fmt.Errorf("encode former limits: %w", err)
	}
	return &updateIntent{Former: data, Score: next.GetOomScoreAdj()}, nil
}

func (u *updateIntent) former() (*runtime.LinuxContainerResources, error) {
	former := &runtime.LinuxContainerResources{}
	if err := proto.Unmarshal(u.Former, former); err != nil {
		return nil, fmt.Errorf("decode former limits: %w", err)
	}
	return former, nil
}

// limitBack sets former limits of a container; one that has ended meanwhile
// has none.
func (m *Manager) limitBack(ctx context.Context, s *containerState, former *runtime.LinuxContainerResources) error {
	err := m.limit(ctx, s.ID, former, s.Extra)
	if err == nil || errdefs.IsFailedPrecondition(err) || errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// limitPodBack sets former limits of a pod's cgroup.
func (m *Manager) limitPodBack(ctx context.Context, s *podState, former *runtime.LinuxContainerResources) error {
	limits, err := spec.Resources(former, m.cfg.Features)
	if err == nil {
		err = m.deps.Cgroups.Update(ctx, s.CgroupPath, limits)
	}
	return err
}

// endUpdate takes back the update of a container that failed, or that an agent
// was killed in. What cannot be taken back stays recorded, for the next start
// of an agent to try.
func (m *Manager) endUpdate(ctx context.Context, c *container) error {
	s := c.get()
	if s.Update == nil {
		return nil
	}
	if s.State.alive() {
		former, err := s.Update.former()
		if err == nil {
			err = m.limitBack(ctx, s, former)
		}
		if err == nil {
			err = m.setScores(s.CgroupPath, s.Update.Score, s.Config.GetLinux().GetResources().GetOomScoreAdj())
		}
		if err != nil {
			return fmt.Errorf("take the update back: %w", err)
		}
	}
	return m.changeContainer(c, func(s *containerState) { s.Update = nil })
}

// endPodUpdate is endUpdate for a pod.
func (m *Manager) endPodUpdate(ctx context.Context, p *pod) error {
	s := p.get()
	if s.Update == nil {
		return nil
	}
	if s.State == PodReady {
		former, err := s.Update.former()
		if err == nil {
			err = m.limitPodBack(ctx, s, former)
		}
		if err != nil {
			return fmt.Errorf("take the update back: %w", err)
		}
	}
	return m.changePod(p, func(s *podState) { s.Update = nil })
}
