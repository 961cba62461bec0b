package sandbox

import (
	"context"
	"fmt"
	"os"
	"path"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/undo"
	"github.com/nodeagent/nodeagent/sandbox/account"
	"github.com/nodeagent/nodeagent/sandbox/checkpoint"
)

// Labels of the snapshots made here.
const (
	// labelVolatile makes the snapshotter mount the writable layer without
	// ever syncing it.
	labelVolatile = "nodeagent/volatile"
	// labelContainer names the container a snapshot belongs to: it is the
	// intent by which a restarted agent knows what to remove.
	labelContainer = "nodeagent/container"
)

// CreateContainer makes a container that is ready to start; no process runs
// yet. Name and attempt are its key in the pod: the same request made again
// joins the one under way, and finds the finished container as long as it
// was not started. Another request of this key fails with ErrAlreadyExists.
func (m *Manager) CreateContainer(ctx context.Context, req CreateContainerRequest) (string, error) {
	name := req.Config.GetMetadata().GetName()
	p, err := m.findPod(req.PodID)
	if err == nil {
		err = checkContainer(req.Config, req.Folder)
	}
	if err != nil {
		return "", fmt.Errorf("create container %q: %w", name, err)
	}
	what := fmt.Sprintf("create container %q in pod %s", name, p.get().ID)
	key := fmt.Sprintf("container %s %q %d", p.get().ID, name, req.Config.GetMetadata().GetAttempt())
	id, err := m.join(ctx, work{
		key: key, what: what, verb: "create container", pod: p.get().ID,
		finished: func() (string, error) { return m.findCreated(p, req.Config.GetMetadata()) },
		do: func(ctx context.Context, op *operation) (string, error) {
			return m.createContainer(ctx, op, p, req)
		},
	})
	if err != nil {
		return "", err
	}
	if c, err := m.findContainer(id); err == nil && !sameContainer(c.get().Config, req.Config) {
		return "", fmt.Errorf("%s: container %s has this name and attempt, and another configuration: %w", what, id, errdefs.ErrAlreadyExists)
	}
	return id, nil
}

// findCreated finds the pod's container of this name and attempt.
func (m *Manager) findCreated(p *pod, meta *runtime.ContainerMetadata) (string, error) {
	for _, c := range m.children(p) {
		s := c.get()
		have := s.Config.GetMetadata()
		if have.GetName() != meta.GetName() || have.GetAttempt() != meta.GetAttempt() {
			continue
		}
		if s.State != ContainerCreated {
			return "", fmt.Errorf("container %s has this name and attempt, and is %s: %w",
				s.ID, s.State, errdefs.ErrAlreadyExists)
		}
		return s.ID, nil
	}
	return "", nil
}

// creation is a container being made.
type creation struct {
	*Manager
	*containerState
	pod       *pod
	image     Image
	container *container
	// checkpoint is the archive's path and archive what was read of it,
	// for a container that is to be restored.
	checkpoint string
	archive    *checkpoint.Archive
}

func (m *Manager) createContainer(ctx context.Context, op *operation, p *pod, req CreateContainerRequest) (string, error) {
	id, podState := req.ID, p.get()
	if id == "" {
		id = newID()
	}
	op.about(podState.ID, id)
	r := &creation{Manager: m, pod: p, checkpoint: req.checkpoint, containerState: &containerState{
		Container: Container{
			ID: id, PodID: podState.ID, Owner: podState.Owner, State: ContainerCreated, Config: req.Config,
			ImageRef: req.Config.GetImage().GetImage(), CreatedAt: now(), SnapshotKey: id,
			CgroupPath: m.containerCgroup(podState, id), Folder: req.Folder,
		},
		Keep: req.Keep, BootID: m.bootID, Extra: req.Extra,
	}}
	if req.Folder != "" {
		r.SnapshotKey = ""
	}
	m.noteContainer(r.containerState, podState)
	defer func() { m.releaseImage(r.ImageID) }() // of none, where there is none
	m.deps.Cgroups.Warm()
	err := undo.Sequence{Name: "create", Stage: op.at, Steps: []undo.Step{
		{Name: "pod", Do: r.checkPod},
		{Name: "image", Do: r.resolveImage},
		{Name: "log", Do: r.placeLog},
		{Name: "directory", Do: r.makeDirectory, Undo: r.removeDirectory},
		{Name: "snapshot", Do: r.prepareSnapshot, Undo: r.removeSnapshot},
		{Name: "archive", Do: r.readArchive, Undo: r.dropArchive},
		{Name: "rootfs", Do: r.mountRoot, Undo: r.unmountRoot},
		{Name: "mounts", Do: r.resolveMounts, Undo: r.releaseMounts},
		{Name: "user", Do: r.resolveUser},
		{Name: "specification", Do: r.buildSpec},
		{Name: "compare", Do: r.compareArchive, Plain: true},
		{Name: "record", Do: r.writeRecord, Undo: r.deleteRecord},
		{Name: "publish", Do: r.publishContainer, Undo: r.unpublishContainer},
	}}.Run(ctx)
	if err != nil {
		return "", err
	}
	return id, nil
}

func (r *creation) checkPod(context.Context) error {
	if s := r.pod.get(); s.State != PodReady {
		return fmt.Errorf("pod is %s: %w", s.State, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// resolveImage finds the image, and holds it against removal until the
// container is listed. A removal that came in between makes the snapshot fail.
func (r *creation) resolveImage(ctx context.Context) (err error) {
	if r.Folder != "" {
		r.StopSignal, err = stopSignal(r.Config, nil)
		return err
	}
	r.image, err = r.deps.Images.ResolveImage(ctx, r.ImageRef)
	if errdefs.IsInvalidArgument(err) {
		return fmt.Errorf("image.image: %w", err)
	}
	if err != nil {
		return err
	}
	r.ImageID = r.image.ID
	r.holdImage(r.ImageID)
	r.StopSignal, err = stopSignal(r.Config, r.image.Config)
	return err
}

// holdImage counts a container being created of the image.
func (m *Manager) holdImage(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.creating[id]++
}

// releaseImage undoes holdImage; "" was never held.
func (m *Manager) releaseImage(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.creating[id]--; m.creating[id] <= 0 {
		delete(m.creating, id)
	}
}

// placeLog decides where the log goes and makes the folders for it.
func (r *creation) placeLog(context.Context) (err error) {
	r.LogDirectory = r.pod.get().Config.GetLogDirectory()
	r.LogPath, err = logPath(r.LogDirectory, r.Config.GetLogPath())
	if err != nil || r.LogPath == "" {
		return err
	}
	return makeLogDir(r.LogDirectory, r.Config.GetLogPath())
}

// makeLogDir makes the folders of a log below the log directory, through no
// symbolic link that leaves it.
func makeLogDir(directory, name string) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(directory)
	if err != nil {
		return err
	}
	defer root.Close()
	return root.MkdirAll(path.Dir(name), 0o755)
}

func (r *creation) makeDirectory(context.Context) error { return r.makeContainerDir(r.ID, r.pod.get()) }

func (r *creation) removeDirectory(context.Context) error { return r.removeContainerDir(r.ID) }

func (r *creation) prepareSnapshot(ctx context.Context) error {
	if r.Folder != "" {
		return nil
	}
	labels := map[string]string{labelContainer: r.ID}
	if !r.Keep {
		labels[labelVolatile] = "true"
	}
	in, err := r.deps.Images.Unpack(ctx, r.ImageID, r.pod.get().Handler)
	if err != nil {
		return err
	}
	_, err = r.deps.Snapshots.Prepare(ctx, r.SnapshotKey, r.image.ChainID, snapshots.WithLabels(labels), in)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("image %s is gone or incomplete: %w", r.ImageID, err)
	}
	return err
}

func (r *creation) removeSnapshot(ctx context.Context) error {
	return r.Manager.removeSnapshot(ctx, r.containerState)
}

func (r *creation) mountRoot(ctx context.Context) error {
	r.Rootfs = r.rootfsDir(r.ID)
	return r.mountRootfs(ctx, r.containerState, r.pod.get())
}

func (r *creation) unmountRoot(context.Context) error { return r.unmountContainer(r.ID) }

func (r *creation) resolveMounts(ctx context.Context) error {
	return r.Manager.resolveMounts(ctx, r.containerState, r.pod.get())
}

func (r *creation) releaseMounts(ctx context.Context) error {
	return r.removeViews(ctx, r.containerState)
}

// resolveUser finds out whom the first process runs as.
func (r *creation) resolveUser(context.Context) (err error) {
	query := userQuery(r.Config, r.image.Config)
	if r.Extra != nil {
		query.Groups = r.Extra.Groups
	}
	r.RunAs, err = account.Resolve(r.Rootfs, query)
	if errdefs.IsInvalidArgument(err) && r.Config.GetLinux().GetSecurityContext().GetRunAsUsername() != "" {
		return fmt.Errorf("linux.security_context.run_as_username: %w", err)
	}
	return err
}

// buildSpec makes the specification already now, so that what is wrong with a
// configuration is told when the container is created.
func (r *creation) buildSpec(ctx context.Context) error {
	built, err := r.specification(ctx, r.containerState, r.pod, r.image.Config)
	if err != nil {
		return err
	}
	r.Args, r.Env, r.WorkingDir = built.Process.Args, built.Process.Env, built.Process.Cwd
	u := built.Process.User
	r.User = containerUser(u.UID, u.GID, u.AdditionalGids)
	r.container = &container{pod: r.pod, busy: newGate(), prepared: built}
	r.container.state.Store(r.containerState)
	return nil
}

func (r *creation) writeRecord(context.Context) error { return r.putContainer(r.containerState) }

func (r *creation) deleteRecord(context.Context) error { return r.containerRecords.Delete(r.ID) }

// publishContainer lists the container, unless its pod began to stop in the
// meantime: a pod is marked before its containers are looked at.
func (r *creation) publishContainer(context.Context) error {
	if err := r.addContainer(r.container); err != nil {
		return err
	}
	r.publish(EventCreated, r.ID, r.pod)
	return nil
}

func (r *creation) unpublishContainer(context.Context) error {
	r.dropContainer(r.ID, r.pod)
	return nil
}

// addContainer lists a container of a ready pod.
func (m *Manager) addContainer(c *container) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := c.pod.get(); s.State != PodReady {
		return fmt.Errorf("pod is %s: %w", s.State, errdefs.ErrFailedPrecondition)
	}
	id := c.get().ID
	m.containers[id] = c
	c.pod.children[id] = c
	return nil
}

// dropContainer takes a container off the lists.
func (m *Manager) dropContainer(id string, p *pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.containers, id)
	delete(p.children, id)
}

func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
