package sandbox

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/atomicfile"
	"github.com/nodeagent/nodeagent/internal/undo"
	"github.com/nodeagent/nodeagent/sandbox/checkpoint"
)

// CheckpointContainer writes a running container's processes and its writable
// layer to the file location, which appears whole or not at all; the container
// goes on. Zero timeout means the bound of every operation. It fails with
// ErrNotImplemented where CRIU does not work.
func (m *Manager) CheckpointContainer(ctx context.Context, containerID, location string, timeout time.Duration) error {
	c, err := m.findContainer(containerID)
	if err != nil {
		return fmt.Errorf("checkpoint container: %w", err)
	}
	id := c.get().ID
	run := &checkpointing{
		freezer: newFreezer(m, []*container{c}),
		work:    filepath.Join(m.checkpointsDir(), id),
		write: func(ctx context.Context, r *checkpointing) error {
			return r.writeArchive(ctx, c, location)
		},
	}
	if err := checkLocation(location); err != nil {
		return fmt.Errorf("checkpoint container %s: %w", id, err)
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(timeout, m.cfg.OperationTimeout))
	defer cancel()
	if err := m.attend(ctx, run.run); err != nil {
		return fmt.Errorf("checkpoint container %s: %w", id, err)
	}
	return nil
}

// checkLocation refuses what cannot become a file.
func checkLocation(location string) error {
	if !filepath.IsAbs(location) || strings.HasSuffix(location, "/") {
		return fmt.Errorf("location %q is no absolute path of a file: %w", location, errdefs.ErrInvalidArgument)
	}
	if st, err := os.Stat(filepath.Dir(location)); err != nil || !st.IsDir() {
		return fmt.Errorf("location %q: its folder is not there: %w", location, errdefs.ErrInvalidArgument)
	}
	if st, err := os.Lstat(location); err == nil && !st.Mode().IsRegular() {
		return fmt.Errorf("location %q is there and no regular file: %w", location, errdefs.ErrInvalidArgument)
	}
	return nil
}

// attend runs fn for a caller who waits for it, and whose context ends it, as
// does the agent's end. Close waits for it.
func (m *Manager) attend(ctx context.Context, fn func(context.Context) error) error {
	m.opsMu.Lock()
	if m.closing {
		m.opsMu.Unlock()
		return fmt.Errorf("the agent is stopping: %w", errdefs.ErrUnavailable)
	}
	m.wg.Add(1)
	m.opsMu.Unlock()
	defer m.wg.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)()
	return fn(ctx)
}

// checkpointing is a checkpoint being made of containers of one pod.
type checkpointing struct {
	*freezer
	// work is a folder of its own for what CRIU writes.
	work string
	// at is when the containers were frozen.
	at time.Time
	// write makes the result of what is in work.
	write func(ctx context.Context, r *checkpointing) error
}

// run is the sequence. All containers are frozen before the first is dumped,
// and thawed when the last is, or when anything goes wrong: an error, the end
// of ctx, a panic. If the agent is killed, the next one thaws them.
func (r *checkpointing) run(ctx context.Context) error {
	defer r.release()
	defer func() { r.warn(r.thaw(), "thaw") }()
	return undo.Sequence{Name: "checkpoint", Steps: []undo.Step{
		{Name: "criu", Do: r.checkCRIU, Plain: true},
		{Name: "wait", Do: r.hold},
		{Name: "folder", Do: r.makeWork, Undo: r.removeWork},
		{Name: "freeze", Do: r.freeze, Undo: func(context.Context) error { return r.thaw() }},
		{Name: "dump", Do: r.dump, Plain: true},
		{Name: "thaw", Do: func(context.Context) error { return r.thaw() }},
		{Name: "write", Do: func(ctx context.Context) error { return r.write(ctx, r) }},
		{Name: "clean", Do: r.removeWork},
	}}.Run(ctx)
}

func (r *checkpointing) checkCRIU(ctx context.Context) error {
	sup, err := r.supervisor()
	if err != nil {
		return err
	}
	return sup.CheckCRIU(ctx)
}

func (r *checkpointing) makeWork(context.Context) error {
	for _, c := range r.containers {
		dir := r.images(c)
		if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}

func (r *checkpointing) removeWork(context.Context) error { return os.RemoveAll(r.work) }

// images is where CRIU writes a container's images.
func (r *checkpointing) images(c *container) string {
	return filepath.Join(r.work, c.get().ID, checkpoint.ImagesName)
}

// layer is the file of a container's writable layer.
func (r *checkpointing) layer(c *container) string {
	return filepath.Join(r.work, c.get().ID, checkpoint.RootfsName)
}

// dump dumps the containers one after the other, with what they wrote: of the
// same moment, for all of them are frozen.
func (r *checkpointing) dump(ctx context.Context) error {
	sup, err := r.supervisor()
	if err != nil {
		return err
	}
	r.at = now()
	for _, c := range r.containers {
		id := c.get().ID
		if err := sup.Checkpoint(ctx, id, r.images(c)); err != nil {
			return unsaid(err, "checkpoint container "+id+": ")
		}
		if err := r.copyLayer(ctx, c); err != nil {
			return fmt.Errorf("writable layer: %w", err)
		}
	}
	return ctx.Err()
}

// copyLayer keeps the writable layer of a container.
func (r *checkpointing) copyLayer(ctx context.Context, c *container) error {
	if c.get().SnapshotKey == "" {
		return nil
	}
	mounts, err := r.deps.Snapshots.Mounts(ctx, c.get().SnapshotKey)
	if err != nil {
		return err
	}
	upper := upperDir(mounts)
	if upper == "" {
		return nil
	}
	f, err := os.OpenFile(r.layer(c), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(f)
	err = r.deps.PackLayer(ctx, out, upper)
	return errors.Join(err, out.Flush(), f.Close())
}

// upperDir is the folder that a snapshot's files are written to.
func upperDir(mounts []mount.Mount) string {
	for _, m := range mounts {
		for _, option := range m.Options {
			if dir, ok := strings.CutPrefix(option, "upperdir="); ok {
				return dir
			}
		}
	}
	return ""
}

// writeArchive writes a container's archive to a file without a name, which
// it gets when it is whole; so nothing is left if the agent is killed.
func (r *checkpointing) writeArchive(ctx context.Context, c *container, location string) error {
	s := c.get()
	process, err := r.loadProcess(s.ID)
	if err != nil {
		return err
	}
	content := checkpoint.Content{
		Config: checkpoint.Config{
			ID: s.ID, Name: s.Config.GetMetadata().GetName(), Image: s.ImageRef, ImageID: s.ImageID,
			Runtime: c.pod.get().Handler, CreatedAt: s.CreatedAt, CheckpointedAt: r.at,
		},
		Spec: process, Images: r.images(c),
	}
	if _, err := os.Lstat(r.layer(c)); err == nil {
		content.Rootfs = r.layer(c)
	}
	f, err := os.OpenFile(filepath.Dir(location), os.O_WRONLY|unix.O_TMPFILE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	out := bufio.NewWriterSize(f, 1<<20)
	if err := checkpoint.Write(ctx, out, content); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	// It may be what is restored after the machine is started anew.
	if err := f.Sync(); err != nil {
		return err
	}
	if err := giveName(f, location); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(location))
}

// giveName gives a file without a name one, in place of what had it.
func giveName(f *os.File, path string) error {
	self := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	err := unix.Linkat(unix.AT_FDCWD, self, unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	if errors.Is(err, unix.EEXIST) {
		if err := os.Remove(path); err != nil {
			return err
		}
		err = unix.Linkat(unix.AT_FDCWD, self, unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	}
	if err != nil {
		return fmt.Errorf("name %s: %w", path, err)
	}
	return nil
}

// checkpointsDir is where checkpoints are made. It is on the disk: an image
// of a container's memory may be large.
func (m *Manager) checkpointsDir() string { return filepath.Join(m.cfg.Root, "checkpoints") }

// clearCheckpoints removes what a killed agent left.
func (m *Manager) clearCheckpoints() error { return os.RemoveAll(m.checkpointsDir()) }
