package sandbox

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"

	"github.com/nodeagent/nodeagent/sandbox/record"
	"github.com/nodeagent/nodeagent/sandbox/spec/cdidevice"
)

// recordVersion is that of the records written; older ones are read too.
const recordVersion = 1

// Manager runs pods and containers. It has the methods of Service.
//
// Locks, in the order they are taken: opsMu, mu, then change of one pod or
// container, then mu of one container. None is held over a call to a
// mechanism.
type Manager struct {
	cfg  Config
	deps Deps
	ns   namespaces
	log  *logrus.Entry

	// ctx is that of everything in the background; wg waits for it.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// linkCtx is that of the connection to the supervisor, which is needed
	// until the last operation is undone; linkDone is closed at its end.
	linkCtx    context.Context
	linkCancel context.CancelFunc
	linkDone   <-chan struct{}

	bootID           string
	podRecords       *record.Store
	containerRecords *record.Store

	// sup is the connection to the supervisor, nil while there is none.
	sup atomic.Pointer[Supervisor]

	// opsMu guards the fields below.
	opsMu   sync.Mutex
	ops     map[string]*operation
	closing bool
	// opsBegun counts operations.
	opsBegun uint64

	// mu guards the fields below, and the children of all pods.
	mu         sync.RWMutex
	pods       map[string]*pod
	podNames   map[string]*pod
	containers map[string]*container
	// creating counts the containers being created of each image.
	creating map[string]int

	events events
	usage  usages
	// looks counts the looks at processes that hang, see hanging.
	looks atomic.Int32
}

// New finds all pods and containers again, takes up what a killed agent left
// half-done, and returns a Manager that is ready to serve. A record that
// cannot be read, and a supervisor that does not answer, are logged and do
// not make it fail; ctx bounds the whole. Close ends it.
func New(ctx context.Context, cfg Config, deps Deps) (*Manager, error) {
	return newManager(ctx, cfg, deps, hostNamespaces{})
}

func newManager(ctx context.Context, cfg Config, deps Deps, ns namespaces) (*Manager, error) {
	cfg.setDefaults()
	m := &Manager{
		cfg: cfg, deps: deps, ns: ns,
		log:        logrus.WithField("part", "sandbox"),
		ops:        map[string]*operation{},
		pods:       map[string]*pod{},
		podNames:   map[string]*pod{},
		containers: map[string]*container{},
		creating:   map[string]int{},
		usage:      newUsages(),
	}
	if err := m.open(); err != nil {
		return nil, err
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.linkCtx, m.linkCancel = context.WithCancel(context.Background())
	m.linkDone = closedChan
	if err := m.recover(ctx); err != nil {
		m.Close()
		return nil, err
	}
	m.spawn(m.sweep)
	return m, nil
}

func (c *Config) setDefaults() {
	if c.CDIDirs == nil {
		c.CDIDirs = cdidevice.DefaultDirs
	}
	c.CgroupParent = cmp.Or(c.CgroupParent, "/nodeagent")
	c.OperationTimeout = cmp.Or(c.OperationTimeout, 4*time.Minute)
	c.RecoveryTimeout = cmp.Or(c.RecoveryTimeout, 10*time.Second)
	c.KillWait = cmp.Or(c.KillWait, 30*time.Second)
	c.SlowAfter = cmp.Or(c.SlowAfter, 10*time.Second)
	c.retryPause = cmp.Or(c.retryPause, time.Second)
}

// open makes the folders. Those in State are mounts of their own, so that
// what is mounted in them stays there.
func (m *Manager) open() (err error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("read boot ID: %w", err)
	}
	m.bootID = strings.TrimSpace(string(boot))
	m.podRecords, err = record.Open(filepath.Join(m.cfg.Root, "pods"), "pod", recordVersion)
	if err != nil {
		return err
	}
	m.containerRecords, err = record.Open(filepath.Join(m.cfg.Root, "containers"), "container", recordVersion)
	if err != nil {
		return err
	}
	for i, dir := range m.stateDirs() {
		if err := m.ns.PrepareRoot(dir); err != nil {
			return err
		}
		// Those of an earlier version may have been more open.
		if err := os.Chmod(dir, stateModes[i]); err != nil {
			return err
		}
	}
	return nil
}

// stateModes are the modes of stateDirs. The root user of a user namespace is
// another on the host, and passes through the containers' to its root
// filesystem; what it needs of a pod is opened for it.
var stateModes = [...]os.FileMode{0o700, 0o711}

// stateDirs are the folders in State: the pods' and the containers'.
func (m *Manager) stateDirs() []string {
	return []string{filepath.Join(m.cfg.State, "sandboxes"), filepath.Join(m.cfg.State, "containers")}
}

// Close ends everything in the background and waits for it. Operations under
// way are undone. Pods and containers stay as they are; when there are none,
// the mounts of the state folders go too.
func (m *Manager) Close() error {
	m.opsMu.Lock()
	m.closing = true
	m.opsMu.Unlock()
	m.cancel()
	m.wg.Wait()
	m.linkCancel()
	<-m.linkDone
	m.events.close()
	m.usage.close()
	return m.release()
}

// closeTime bounds what Close gives back.
const closeTime = 10 * time.Second

// release gives back what all pods had in common, when there are none.
func (m *Manager) release() error {
	var errs []error
	for _, dir := range m.stateDirs() {
		errs = append(errs, m.ns.ReleaseRoot(dir))
	}
	if len(m.Pods()) == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		errs = append(errs, m.deps.Cgroups.Remove(ctx, m.podsCgroup()))
	}
	return errors.Join(errs...)
}

// podsCgroup is that of all pods that name no parent.
func (m *Manager) podsCgroup() string { return m.ownCgroup(path.Join("/", m.cfg.CgroupParent), "pods") }

// spawn runs fn in a goroutine that Close waits for. It does nothing once
// Close was called: what it would have done is found again at the next start.
func (m *Manager) spawn(fn func()) {
	m.opsMu.Lock()
	defer m.opsMu.Unlock()
	if !m.closing {
		m.wg.Go(fn)
	}
}

// supervisor gives the connection, or ErrUnavailable.
func (m *Manager) supervisor() (Supervisor, error) {
	s := m.sup.Load()
	if s == nil {
		return nil, fmt.Errorf("no supervisor answers: %w", errdefs.ErrUnavailable)
	}
	return *s, nil
}

// idBytes is the length of an ID; it is written with two digits for each.
const idBytes = 32

// NewID makes the ID of a container to come: 64 hexadecimal digits.
func NewID() string { return newID() }

// newID makes 64 hexadecimal digits.
func newID() string {
	var b [idBytes]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// find looks an ID or a unique prefix up. The caller holds mu.
func find[T any](all map[string]T, kind, id string) (found T, err error) {
	if id == "" {
		return found, fmt.Errorf("%s ID is empty: %w", kind, errdefs.ErrInvalidArgument)
	}
	if exact, ok := all[id]; ok {
		return exact, nil
	}
	matches := 0
	for full, v := range all {
		if strings.HasPrefix(full, id) {
			found = v
			matches++
		}
	}
	var none T
	switch matches {
	case 0:
		return none, fmt.Errorf("%s %s: %w", kind, id, errdefs.ErrNotFound)
	case 1:
		return found, nil
	}
	return none, fmt.Errorf("%s %s: %d of them begin so: %w", kind, id, matches, errdefs.ErrInvalidArgument)
}

func (m *Manager) findPod(id string) (*pod, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return find(m.pods, "pod", id)
}

func (m *Manager) findContainer(id string) (*container, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return find(m.containers, "container", id)
}

// Pod tells of one pod.
func (m *Manager) Pod(podID string) (Pod, error) {
	p, err := m.findPod(podID)
	if err != nil {
		return Pod{}, err
	}
	return p.get().Pod, nil
}

// Pods lists all pods, the newest first.
func (m *Manager) Pods() []Pod {
	m.mu.RLock()
	list := make([]Pod, 0, len(m.pods))
	for _, p := range m.pods {
		list = append(list, p.get().Pod)
	}
	m.mu.RUnlock()
	slices.SortFunc(list, func(a, b Pod) int { return b.CreatedAt.Compare(a.CreatedAt) })
	return list
}

// Container tells of one container.
func (m *Manager) Container(containerID string) (Container, error) {
	c, err := m.findContainer(containerID)
	if err != nil {
		return Container{}, err
	}
	return c.get().Container, nil
}

// Containers lists all containers, the newest first.
func (m *Manager) Containers() []Container {
	m.mu.RLock()
	list := make([]Container, 0, len(m.containers))
	for _, c := range m.containers {
		list = append(list, c.get().Container)
	}
	m.mu.RUnlock()
	return newestFirst(list)
}

// PodContainers returns the containers of one pod, the newest first.
func (m *Manager) PodContainers(podID string) []Container {
	p, err := m.findPod(podID)
	if err != nil {
		return nil
	}
	children := m.children(p)
	list := make([]Container, 0, len(children))
	for _, c := range children {
		list = append(list, c.get().Container)
	}
	return newestFirst(list)
}

func newestFirst(list []Container) []Container {
	slices.SortFunc(list, func(a, b Container) int { return b.CreatedAt.Compare(a.CreatedAt) })
	return list
}

// ImagesInUse returns the IDs of the images of all containers, also of those
// being created, and of those mounted in them.
func (m *Manager) ImagesInUse() map[string]bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	used := map[string]bool{}
	for _, c := range m.containers {
		s := c.get()
		used[s.ImageID] = true
		for _, mt := range s.Mounts {
			if id := mt.GetImage().GetImageRef(); id != "" {
				used[id] = true
			}
		}
	}
	for id := range m.creating {
		used[id] = true
	}
	return used
}

// children lists a pod's containers.
func (m *Manager) children(p *pod) []*container {
	m.mu.RLock()
	defer m.mu.RUnlock()
	list := make([]*container, 0, len(p.children))
	for _, c := range p.children {
		list = append(list, c)
	}
	return list
}

// podDir is the pod's folder in State; its namespaces are pinned in "ns".
func (m *Manager) podDir(id string) string { return filepath.Join(m.cfg.State, "sandboxes", id) }

func (m *Manager) nsDir(id string) string { return filepath.Join(m.podDir(id), "ns") }

// containerDir is the container's folder in State.
func (m *Manager) containerDir(id string) string {
	return filepath.Join(m.cfg.State, "containers", id)
}
