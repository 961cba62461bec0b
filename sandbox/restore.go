package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/undo"
	"github.com/nodeagent/nodeagent/sandbox/checkpoint"
)

// RestorePodRequest asks for a pod whose containers go on where a checkpoint
// was made of them. What they are is said here alone; the checkpoint, which
// may come from anywhere, must agree.
type RestorePodRequest struct {
	// Path is a folder that CheckpointPod wrote. It is not changed.
	Path       string
	Config     *runtime.PodSandboxConfig
	Handler    string
	Owner      Owner
	Containers []*runtime.ContainerConfig
}

// RestorePod makes the pod and its containers, ready to start: StartContainer
// restores their processes. It returns the containers' IDs by name. On an
// error, and when ctx ends before it is done, nothing is left.
func (m *Manager) RestorePod(ctx context.Context, req RestorePodRequest) (podID string, containers map[string]string, err error) {
	r := &podRestore{Manager: m, req: req, containers: map[string]string{}}
	err = m.attend(ctx, func(ctx context.Context) error {
		return undo.Sequence{Name: "restore", Steps: []undo.Step{
			{Name: "criu", Do: r.checkCRIU, Plain: true},
			{Name: "checkpoint", Do: r.readCheckpoint},
			{Name: "pod", Do: r.runPod, Undo: r.removePod, Plain: true},
			{Name: "containers", Do: r.createContainers, Plain: true},
		}}.Run(ctx)
	})
	if err != nil {
		return "", nil, fmt.Errorf("restore pod %s: %w", podTitle(req.Config.GetMetadata()), err)
	}
	return r.podID, r.containers, nil
}

type podRestore struct {
	*Manager
	req   RestorePodRequest
	podID string
	// archives are the checkpoint's, by container's name.
	archives map[string]string
	// containers are the IDs of what was made, by name.
	containers map[string]string
}

func (r *podRestore) checkCRIU(ctx context.Context) error {
	sup, err := r.supervisor()
	if err != nil {
		return err
	}
	return sup.CheckCRIU(ctx)
}

// podCheckpointLimit bounds pod.json, in bytes.
const podCheckpointLimit = 1 << 20

// archivePattern is what CheckpointPod calls archives.
var archivePattern = regexp.MustCompile(`^[0-9]{1,4}\.tar$`)

// readCheckpoint reads what the checkpoint is of, and compares.
func (r *podRestore) readCheckpoint(context.Context) error {
	f, err := openRegular(filepath.Join(r.req.Path, podCheckpointName))
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	defer f.Close()
	var told podCheckpoint
	if err := json.NewDecoder(io.LimitReader(f, podCheckpointLimit)).Decode(&told); err != nil {
		return fmt.Errorf("decode %s: %w: %w", podCheckpointName, err, errdefs.ErrInvalidArgument)
	}
	if told.Version != podCheckpointVersion {
		return fmt.Errorf("version %d is not known: %w", told.Version, errdefs.ErrInvalidArgument)
	}
	if told.Handler != r.req.Handler {
		return fmt.Errorf("it is of runtime handler %.140q, not %q: %w", told.Handler, r.req.Handler, errdefs.ErrInvalidArgument)
	}
	r.archives = map[string]string{}
	for _, c := range told.Containers {
		if !archivePattern.MatchString(c.Archive) || r.archives[c.Name] != "" {
			return fmt.Errorf("container %.140q with archive %.140q: %w", c.Name, c.Archive, errdefs.ErrInvalidArgument)
		}
		r.archives[c.Name] = filepath.Join(r.req.Path, c.Archive)
	}
	named := map[string]bool{}
	for _, c := range r.req.Containers {
		name := c.GetMetadata().GetName()
		if r.archives[name] == "" || named[name] {
			return fmt.Errorf("container %q is named twice or not in it: %w", name, errdefs.ErrInvalidArgument)
		}
		named[name] = true
	}
	if len(named) != len(r.archives) {
		return fmt.Errorf("it has %d containers, of which %d are asked for: %w", len(r.archives), len(named), errdefs.ErrInvalidArgument)
	}
	return nil
}

// runPod makes the pod, which must not be there. It is let end, so that there
// is something to undo.
func (r *podRestore) runPod(ctx context.Context) (err error) {
	r.mu.RLock()
	have := r.podNames[podKey(r.req.Owner, r.req.Config.GetMetadata())]
	r.mu.RUnlock()
	if have != nil {
		return fmt.Errorf("pod %s has this name: %w", have.get().ID, errdefs.ErrAlreadyExists)
	}
	r.podID, err = r.RunPod(context.WithoutCancel(ctx), RunPodRequest{
		Config: r.req.Config, Handler: r.req.Handler, Owner: r.req.Owner,
	})
	return err
}

// removePod removes the containers too.
func (r *podRestore) removePod(ctx context.Context) error {
	if r.podID == "" {
		return nil
	}
	return r.RemovePod(ctx, r.podID)
}

func (r *podRestore) createContainers(ctx context.Context) error {
	for _, config := range r.req.Containers {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := config.GetMetadata().GetName()
		id, err := r.CreateContainer(context.WithoutCancel(ctx), CreateContainerRequest{
			PodID: r.podID, Config: config, checkpoint: r.archives[name],
		})
		if err != nil {
			return err
		}
		r.containers[name] = id
	}
	return ctx.Err()
}

// openRegular opens a file that is no symbolic link, FIFO or device. It is
// looked at before it is opened, and opened is what was looked at.
func openRegular(path string) (*os.File, error) {
	handle, err := os.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	if st, err := handle.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is no regular file", path), err)
	}
	return pathrs.Reopen(handle, unix.O_RDONLY)
}

// restoresDir holds what containers are restored from until they start.
func (m *Manager) restoresDir() string { return filepath.Join(m.cfg.Root, "restores") }

func (m *Manager) restoreDir(id string) string { return filepath.Join(m.restoresDir(), id) }

// readArchive reads the checkpoint of a container being made, and puts what it
// had written into its layer before that is mounted.
func (r *creation) readArchive(ctx context.Context) error {
	if r.checkpoint == "" {
		return nil
	}
	dir := r.restoreDir(r.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := openRegular(r.checkpoint)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	defer f.Close()
	if r.archive, err = checkpoint.Read(ctx, f, dir, checkpoint.Limits{}); err != nil {
		return err
	}
	if r.archive.Rootfs {
		if err := r.applyLayer(ctx, filepath.Join(dir, checkpoint.RootfsName)); err != nil {
			return err
		}
	}
	r.Restore = filepath.Join(dir, checkpoint.ImagesName)
	return nil
}

func (r *creation) applyLayer(ctx context.Context, file string) error {
	mounts, err := r.deps.Snapshots.Mounts(ctx, r.SnapshotKey)
	if err != nil {
		return err
	}
	upper := upperDir(mounts)
	if upper == "" {
		return fmt.Errorf("the image has no layers to put the checkpoint's on: %w", errdefs.ErrFailedPrecondition)
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	// It closes f.
	if err := r.deps.ApplyLayer(ctx, f, upper, lowerDirs(mounts)); err != nil {
		return fmt.Errorf("writable layer: %w", err)
	}
	return os.Remove(file)
}

// lowerDirs are the folders below the one that is written to, the nearest
// first.
func lowerDirs(mounts []mount.Mount) []string {
	for _, m := range mounts {
		for _, option := range m.Options {
			if dirs, ok := strings.CutPrefix(option, "lowerdir="); ok {
				return strings.Split(dirs, ":")
			}
		}
	}
	return nil
}

// compareArchive holds the checkpoint to what the request describes.
func (r *creation) compareArchive(context.Context) error {
	if r.archive == nil {
		return nil
	}
	return r.archive.Compare(checkpoint.Expected{
		Name: r.Config.GetMetadata().GetName(), ImageID: r.ImageID, Process: r.container.prepared.Process,
	})
}

func (r *creation) dropArchive(context.Context) error {
	if r.checkpoint == "" {
		return nil
	}
	return os.RemoveAll(r.restoreDir(r.ID))
}

// clearRestores removes what no container waits to be restored from.
func (m *Manager) clearRestores() error {
	entries, err := os.ReadDir(m.restoresDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if c, ferr := m.findContainer(e.Name()); ferr == nil && c.get().ID == e.Name() && c.get().Restore != "" {
			continue
		}
		err = errors.Join(err, os.RemoveAll(m.restoreDir(e.Name())))
	}
	return err
}

// removeRestore removes what a container was never restored from.
func (m *Manager) removeRestore(s *containerState) error {
	if s.Restore == "" {
		return nil
	}
	return os.RemoveAll(m.restoreDir(s.ID))
}
