package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nodeagent/nodeagent/internal/undo"
	"github.com/nodeagent/nodeagent/supervisor"
)

// startErrorCode is the exit code of a container that could not be started.
const startErrorCode = 128

// StartContainer starts a created container, or an exited one that is kept.
// A container that cannot be started has exited with code 128 and reason
// "StartError". The returned Attachment is nil when attach is.
func (m *Manager) StartContainer(ctx context.Context, containerID string, attach *IO) (*Attachment, error) {
	c, err := m.findContainer(containerID)
	if err != nil {
		return nil, fmt.Errorf("start container: %w", err)
	}
	id := c.get().ID
	run := &starting{Manager: m, c: c}
	// Starting twice is an error, so nobody joins: the second caller finds
	// the container running. The streams belong to the operation, which goes
	// on when ctx ends.
	_, err = m.join(ctx, work{
		key: "start " + newID(), what: "start container " + id, verb: "start container", pod: c.get().PodID, container: id,
		do: func(ctx context.Context, op *operation) (string, error) {
			return id, run.attached(ctx, op, attach)
		},
	})
	if err != nil {
		return nil, err
	}
	return run.attachment, nil
}

// starting is a container being started.
type starting struct {
	*Manager
	c      *container
	client *client
	spec   *specs.Spec
	pid    int
	// link is the connection to the supervisor that it is started over.
	link *Supervisor
	// attachment is set once the container runs; nil without a client.
	attachment *Attachment
}

// attached starts the container with a client; nil is none.
func (r *starting) attached(ctx context.Context, op *operation, attach *IO) (err error) {
	if attach == nil {
		return r.start(ctx, op)
	}
	s := r.c.get()
	if r.client, err = newClient(*attach, s.Config.GetTty()); err != nil {
		return err
	}
	if err := r.start(ctx, op); err != nil {
		r.client.abandon()
		return err
	}
	r.attachment = r.client.serve(r.Manager, s.ID)
	return nil
}

func (r *starting) start(ctx context.Context, op *operation) error {
	c := r.c
	if err := acquire(ctx, c.busy); err != nil {
		return err
	}
	defer c.busy.release()
	if err := r.check(); err != nil {
		return err
	}
	r.deps.Cgroups.Warm()
	err := undo.Sequence{Name: "start", Stage: op.at, Steps: []undo.Step{
		{Name: "rootfs", Do: r.remount},
		{Name: "specification", Do: r.prepare},
		{Name: "process", Do: r.saveProcess},
		{Name: "supervisor", Do: r.run, Undo: r.kill, Plain: true},
		{Name: "record", Do: r.record},
	}}.Run(ctx)
	if err != nil {
		return errors.Join(err, r.fail(err))
	}
	r.publish(EventStarted, c.get().ID, c.pod)
	if r.sup.Load() != r.link {
		// It may have ended while nobody listened, and who looked for such
		// exits after that did not know that it runs.
		r.background("look for missed exits", r.findExits)
	}
	return nil
}

// check refuses what the states forbid. The container's gate is held.
func (r *starting) check() error {
	s := r.c.get()
	if _, err := r.findContainer(s.ID); err != nil {
		return fmt.Errorf("it was removed: %w", errdefs.ErrNotFound)
	}
	if p := r.c.pod.get(); p.State != PodReady {
		return fmt.Errorf("its pod is %s: %w", p.State, errdefs.ErrFailedPrecondition)
	}
	if s.State == ContainerCreated || (s.State == ContainerExited && s.Keep) {
		return nil
	}
	return fmt.Errorf("it is %s: %w", s.State, errdefs.ErrFailedPrecondition)
}

// remount mounts the root filesystem of a container that ran before, and the
// images in it.
func (r *starting) remount(ctx context.Context) error {
	s := *r.c.get()
	if s.State != ContainerExited {
		return nil
	}
	r.c.setPrepared(nil)
	if err := r.removeViews(ctx, &s); err != nil {
		return err
	}
	s.Views = nil
	if err := r.makeContainerDir(s.ID, r.c.pod.get()); err != nil {
		return err
	}
	if err := r.mountRootfs(ctx, &s, r.c.pod.get()); err != nil {
		return err
	}
	if err := r.resolveMounts(ctx, &s, r.c.pod.get()); err != nil {
		return err
	}
	return r.changeContainer(r.c, func(next *containerState) { next.Mounts, next.Views = s.Mounts, s.Views })
}

// prepare takes the specification made at creation, or makes it again.
func (r *starting) prepare(ctx context.Context) (err error) {
	if r.spec = r.c.takePrepared(); r.spec != nil && !joinsProcess(r.spec) {
		return nil
	}
	s := r.c.get()
	var image Image
	if s.Folder == "" {
		if image, err = r.deps.Images.ResolveImage(ctx, s.ImageID); err != nil {
			return err
		}
	}
	r.spec, err = r.specification(ctx, s, r.c.pod, image.Config)
	return err
}

// joinsProcess tells of a specification that joins a namespace of a process,
// whose number may be another's when the container is started.
func joinsProcess(s *specs.Spec) bool {
	return slices.ContainsFunc(s.Linux.Namespaces, func(ns specs.LinuxNamespace) bool {
		return strings.HasPrefix(ns.Path, "/proc/")
	})
}

// setPrepared keeps a specification for the start.
func (c *container) setPrepared(s *specs.Spec) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prepared = s
}

// takePrepared gives up the specification that was kept.
func (c *container) takePrepared() *specs.Spec {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.prepared
	c.prepared = nil
	return s
}

func (r *starting) saveProcess(context.Context) error {
	return r.Manager.saveProcess(r.c.get().ID, r.spec)
}

func (r *starting) run(ctx context.Context) error {
	r.link = r.sup.Load()
	sup, err := r.supervisor()
	if err != nil {
		return err
	}
	s := r.c.get()
	whole := *r.spec
	whole.Process = withSize(withHome(r.spec.Process, s.RunAs.Home), r.client)
	r.pid, err = sup.Start(ctx, supervisor.Container{
		ID: s.ID, Spec: &whole, LogPath: s.LogPath, MaxLogLine: r.cfg.MaxLogLine,
		Stdin: s.Config.GetStdin(), StdinOnce: s.Config.GetStdinOnce(),
		SystemdCgroup: r.cfg.SystemdCgroup, Attach: r.client.remote(), Restore: s.Restore,
	})
	return unsaid(err, "start container "+s.ID+": ")
}

// kill undoes run; what was not started is unknown, which is no error.
func (r *starting) kill(ctx context.Context) error {
	sup, err := r.supervisor()
	if err != nil {
		return err
	}
	_, err = sup.Delete(ctx, r.c.get().ID)
	return err
}

func (r *starting) record(context.Context) error {
	restored := r.c.get().Restore != ""
	err := r.changeContainer(r.c, func(s *containerState) {
		s.Restore = ""
		s.State, s.PID, s.StartedAt = ContainerRunning, r.pid, now()
		s.FinishedAt, s.ExitCode, s.Reason, s.Message = time.Time{}, 0, "", ""
	})
	if err == nil && restored {
		r.warn(os.RemoveAll(r.restoreDir(r.c.get().ID)), "remove what it was restored from")
	}
	return err
}

// fail records that the container could not be started.
func (r *starting) fail(cause error) error {
	err := r.changeContainer(r.c, func(s *containerState) {
		s.State, s.PID, s.FinishedAt = ContainerExited, 0, now()
		s.ExitCode, s.Reason = startErrorCode, "StartError"
		// The kind says nothing that the rest does not.
		s.Message = strings.TrimSuffix(cause.Error(), ": "+errdefs.ErrInvalidArgument.Error())
	})
	r.publish(EventStopped, r.c.get().ID, r.c.pod)
	return errors.Join(err, r.unmountContainer(r.c.get().ID))
}
