package sandbox

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/sandbox/namespace"
	"github.com/nodeagent/nodeagent/sandbox/spec"
)

// podMaking is the state of a pod whose record is an intent: it is in no
// list, and found at start it is undone.
const podMaking PodState = "making"

// podMoves are the changes of state that happen.
var podMoves = map[PodState][]PodState{
	podMaking:   {PodReady},
	PodReady:    {PodStopping},
	PodStopping: {PodNotReady, PodReady},
	// Only nodectl's pods come back, see RevivePod.
	PodNotReady: {PodStopping},
}

// containerMoves are the changes of state that happen.
var containerMoves = map[ContainerState][]ContainerState{
	ContainerCreated: {ContainerRunning, ContainerExited},
	ContainerRunning: {ContainerPaused, ContainerExited},
	ContainerPaused:  {ContainerRunning, ContainerExited},
	// Only containers that are kept are started again.
	ContainerExited: {ContainerRunning},
}

// alive says that there are processes, paused or not.
func (s ContainerState) alive() bool { return s == ContainerRunning || s == ContainerPaused }

// podState is a pod at one moment, as it is recorded. A published one is
// never changed, only replaced.
type podState struct {
	Pod
	// BootID is that of the boot it was made in.
	BootID string
	// Own are the namespaces pinned for it.
	Own []namespace.Kind
	// UIDs and GIDs are the mappings of its user namespace, if it has one.
	UIDs, GIDs []namespace.Mapping
	// Hostname is what its UTS namespace says.
	Hostname string
	// Domainname is RunPodRequest's.
	Domainname string `json:",omitempty"`
	// OwnsCgroup says that CgroupPath goes with the pod.
	OwnsCgroup bool
	// Networks is RunPodRequest's.
	Networks *network.Membership `json:",omitempty"`
	// MAC is RunPodRequest's.
	MAC string `json:",omitempty"`
	// NetworkGone says that the network has been given back.
	NetworkGone bool
	// ShmSize is RunPodRequest's.
	ShmSize int64 `json:",omitempty"`
	// Update is a change of limits that is under way; nil without one.
	Update *updateIntent `json:",omitempty"`
}

// podFile is a pod's record.
type podFile struct {
	podState
	// Config hides the field of the same name: it is kept in protobuf.
	Config []byte
}

// containerState is a container at one moment, as it is recorded. A published
// one is never changed, only replaced.
type containerState struct {
	Container
	// Keep is CreateContainerRequest's.
	Keep   bool
	BootID string
	// RunAs is whom the first process runs as.
	RunAs spec.User
	// Views are the snapshots of the images mounted in it.
	Views []string
	// Frozen says that the container is, or is about to be, held still by
	// a checkpoint, and must be let go on whatever happens.
	Frozen bool `json:",omitempty"`
	// Restore is the folder of CRIU's images that a start restores; empty
	// when there is nothing to restore, or it was.
	Restore string `json:",omitempty"`
	// LogDirectory is the pod's at the time.
	LogDirectory string
	// Extra is CreateContainerRequest's.
	Extra *spec.Extra `json:",omitempty"`
	// Update is a change of limits that is under way; nil without one.
	Update *updateIntent `json:",omitempty"`
}

// containerFile is a container's record. Its fields hide those of the same
// names: they are kept in protobuf, the mounts as a configuration that has
// nothing else.
type containerFile struct {
	containerState
	Config []byte
	Mounts []byte
	User   []byte `json:",omitempty"`
}

// gate is held by one sequence at a time; who waits for it can give up.
type gate chan struct{}

func newGate() gate { return make(gate, 1) }

func (g gate) release() { <-g }

// pod is what the Manager holds of a pod.
type pod struct {
	state atomic.Pointer[podState]
	// busy is held while the pod's init is made.
	busy gate
	// standing is held by what stops, revives or removes the pod; it is taken
	// before the gates of containers.
	standing gate
	// retrying says that a background goroutine is finishing its stop.
	retrying atomic.Bool
	// change guards the replacing of state together with its record, and gone:
	// the record was deleted, and is not written again.
	change sync.Mutex
	gone   bool
	// children are the pod's containers by ID, guarded by Manager.mu.
	children map[string]*container
}

// container is what the Manager holds of a container.
type container struct {
	pod   *pod
	state atomic.Pointer[containerState]
	// busy is held by the sequences that start, clean up and remove it.
	busy gate
	// change guards the replacing of state together with its record, and gone:
	// the record was deleted, and is not written again.
	change sync.Mutex
	gone   bool

	// mu guards the fields below; nothing else is locked under it.
	mu sync.Mutex
	// ended is closed when the container exits; nil while nobody waits.
	ended chan struct{}
	// stop is the stop that is under way; nil without one.
	stop *stopping
	// prepared is the specification built when it was created; it is
	// dropped by whatever makes it out of date, and built again.
	prepared *specs.Spec
}

func (p *pod) get() *podState             { return p.state.Load() }
func (c *container) get() *containerState { return c.state.Load() }

// changePod replaces a pod's state by what change makes of a copy, on disk
// first. It is the only door.
func (m *Manager) changePod(p *pod, change func(*podState)) error {
	p.change.Lock()
	defer p.change.Unlock()
	before := p.get()
	if p.gone {
		return fmt.Errorf("pod %s: %w", before.ID, errdefs.ErrNotFound)
	}
	next := *before
	change(&next)
	if next.State != before.State && !slices.Contains(podMoves[before.State], next.State) {
		return fmt.Errorf("pod %s: from %s to %s: %w", next.ID, before.State, next.State, errdefs.ErrFailedPrecondition)
	}
	if err := m.putPod(&next); err != nil {
		return err
	}
	p.state.Store(&next)
	return nil
}

// changeContainer replaces a container's state by what change makes of a
// copy, on disk first. It is the only door.
func (m *Manager) changeContainer(c *container, change func(*containerState)) error {
	c.change.Lock()
	defer c.change.Unlock()
	before := c.get()
	if c.gone {
		return fmt.Errorf("container %s: %w", before.ID, errdefs.ErrNotFound)
	}
	next := *before
	change(&next)
	if next.State != before.State && !slices.Contains(containerMoves[before.State], next.State) {
		return fmt.Errorf("container %s: from %s to %s: %w",
			next.ID, before.State, next.State, errdefs.ErrFailedPrecondition)
	}
	err := m.putContainer(&next)
	if err != nil && next.State != ContainerExited {
		return err
	}
	// An exit is a fact, whether it can be written down or not; on a full
	// disk it is found again at the next start.
	c.state.Store(&next)
	if next.State == ContainerExited {
		c.announceEnd()
	}
	return err
}

// deletePod deletes a pod's record for good: who found the pod before, and
// changes it now, must not write it anew.
func (m *Manager) deletePod(p *pod) error {
	p.change.Lock()
	defer p.change.Unlock()
	err := m.podRecords.Delete(p.get().ID)
	p.gone = err == nil
	return err
}

// deleteContainer is deletePod for a container.
func (m *Manager) deleteContainer(c *container) error {
	c.change.Lock()
	defer c.change.Unlock()
	err := m.containerRecords.Delete(c.get().ID)
	c.gone = err == nil
	return err
}

// announceEnd wakes all who wait for the container to exit.
func (c *container) announceEnd() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		close(c.ended)
		c.ended = nil
	}
	c.stop = nil
}

// end is closed when the container exits; it is closed already if it has.
func (c *container) end() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.endLocked()
}

func (c *container) endLocked() <-chan struct{} {
	if c.get().State == ContainerExited {
		return closedChan
	}
	if c.ended == nil {
		c.ended = make(chan struct{})
	}
	return c.ended
}

var closedChan = func() chan struct{} {
	ch := make(chan struct{})
	close(ch)
	return ch
}()

// putPod writes a pod's record.
func (m *Manager) putPod(s *podState) error {
	config, err := proto.Marshal(s.Config)
	if err != nil {
		return fmt.Errorf("encode configuration of pod %s: %w", s.ID, err)
	}
	return m.podRecords.Put(s.ID, podFile{podState: *s, Config: config})
}

// getPod reads a pod's record.
func (m *Manager) getPod(id string) (*podState, error) {
	var f podFile
	if err := m.podRecords.Get(id, &f); err != nil {
		return nil, err
	}
	s := &f.podState
	s.Config = &runtime.PodSandboxConfig{}
	if err := proto.Unmarshal(f.Config, s.Config); err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	if s.ID != id || s.Config.GetMetadata() == nil {
		return nil, fmt.Errorf("record of %q holds pod %q: %w", id, s.ID, errdefs.ErrDataLoss)
	}
	return s, nil
}

// putContainer writes a container's record.
func (m *Manager) putContainer(s *containerState) error {
	f := containerFile{containerState: *s}
	var err error
	if f.Config, err = proto.Marshal(s.Config); err != nil {
		return fmt.Errorf("encode configuration of container %s: %w", s.ID, err)
	}
	if f.Mounts, err = proto.Marshal(&runtime.ContainerConfig{Mounts: s.Mounts}); err != nil {
		return fmt.Errorf("encode mounts of container %s: %w", s.ID, err)
	}
	if f.User, err = proto.Marshal(s.User); err != nil {
		return fmt.Errorf("encode user of container %s: %w", s.ID, err)
	}
	return m.containerRecords.Put(s.ID, f)
}

// getContainer reads a container's record.
func (m *Manager) getContainer(id string) (*containerState, error) {
	var f containerFile
	if err := m.containerRecords.Get(id, &f); err != nil {
		return nil, err
	}
	s := &f.containerState
	s.Config = &runtime.ContainerConfig{}
	if err := proto.Unmarshal(f.Config, s.Config); err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	var mounts runtime.ContainerConfig
	if err := proto.Unmarshal(f.Mounts, &mounts); err != nil {
		return nil, fmt.Errorf("decode mounts: %w", err)
	}
	s.Mounts = mounts.Mounts
	s.User = &runtime.ContainerUser{}
	if err := proto.Unmarshal(f.User, s.User); err != nil {
		return nil, fmt.Errorf("decode user: %w", err)
	}
	if s.ID != id || s.Config.GetMetadata() == nil {
		return nil, fmt.Errorf("record of %q holds container %q: %w", id, s.ID, errdefs.ErrDataLoss)
	}
	return s, nil
}

// now is the wall clock; records cannot hold a monotonic reading.
func now() time.Time { return time.Now().Round(0) }
