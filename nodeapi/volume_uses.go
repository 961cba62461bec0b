package nodeapi

import (
	"context"
	"slices"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/nodeagent/nodeagent/volume"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// volumeUses maps each volume to the containers that have it mounted, running
// or not.
func (s *Server) volumeUses() map[string][]string {
	uses := map[string][]string{}
	for _, c := range s.sandboxes.Containers() {
		for _, m := range s.specOf(c).GetMounts() {
			if m.GetType() == nodev1.Mount_VOLUME && !slices.Contains(uses[m.GetSource()], c.ID) {
				uses[m.GetSource()] = append(uses[m.GetSource()], c.ID)
			}
		}
	}
	return uses
}

// volumeMessage is a volume as the node API shows it.
func (s *Server) volumeMessage(v volume.Volume, uses map[string][]string) *nodev1.Volume {
	return &nodev1.Volume{
		Name: v.Name, Driver: volume.Driver, Options: v.Options, Labels: v.Labels, CreatedAt: timestamppb.New(v.CreatedAt),
		Mountpoint: s.volumes.Path(v.Name), Anonymous: v.Anonymous, UsedBy: uses[v.Name], Size: -1,
	}
}

// findVolume finds a volume by its name.
func (s *Server) findVolume(name string) (volume.Volume, error) {
	v, err := s.volumes.Get(name)
	if errdefs.IsNotFound(err) {
		return v, failf(errdefs.ErrNotFound, "get %s: no such volume", name)
	}
	return v, err
}

// removeVolume removes a volume that no container uses; one that is used is
// ErrFailedPrecondition.
func (s *Server) removeVolume(name string) error {
	used := func(name string) bool { return len(s.volumeUses()[name]) > 0 }
	if err := s.volumes.Remove(name, used); err != nil {
		return err
	}
	s.emit(eventVolume, "destroy", name, map[string]string{"driver": volume.Driver})
	return nil
}

// anonymousVolumes are those that go with a container.
func anonymousVolumes(spec *nodev1.ContainerSpec) []string {
	var names []string
	for _, m := range spec.GetMounts() {
		if m.GetType() == nodev1.Mount_VOLUME && m.GetAnonymous() {
			names = append(names, m.GetSource())
		}
	}
	return names
}

// removeAnonymous removes those volumes of a container that was removed which
// no other container took over.
func (s *Server) removeAnonymous(names []string) error {
	for _, name := range names {
		if err := s.removeVolume(name); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
			return err
		}
	}
	return nil
}

// useVolumes makes the files of a container's volumes be there, and keeps them
// there until release is called, which is when it runs or was not started: then
// unmountVolumes knows what to do.
func (s *Server) useVolumes(ctx context.Context, spec *nodev1.ContainerSpec) (release func(), err error) {
	var all []func()
	release = func() {
		for _, one := range all {
			one()
		}
	}
	for _, m := range spec.GetMounts() {
		if m.GetType() != nodev1.Mount_VOLUME {
			continue
		}
		one, err := s.volumes.Use(ctx, m.GetSource())
		if err != nil {
			release()
			return nil, err
		}
		all = append(all, one)
	}
	return release, nil
}

// readyParts mounts folders of volumes where a container is to take them from, until
// release is called.
func (s *Server) readyParts(key string, mounts []*nodev1.Mount) (release func(), err error) {
	var targets []string
	release = func() {
		for _, target := range targets {
			if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				logrus.WithError(err).WithField("path", target).Warn("unmount a part of a volume")
			}
		}
	}
	for i, m := range mounts {
		if !isPart(m) {
			continue
		}
		target := s.files.part(key, i)
		if err := s.volumes.BindSubfolder(m.GetSource(), m.GetSubpath(), target); err != nil {
			release()
			return nil, said(err)
		}
		targets = append(targets, target)
	}
	return release, nil
}

// unmountVolumes begins to take away the mounts of volumes that no running
// container has any more. Nobody waits for that: another machine may have the
// files, and not answer.
func (s *Server) unmountVolumes(c sandbox.Container) {
	var names []string
	for _, m := range s.specOf(c).GetMounts() {
		if v, err := s.volumes.Get(m.GetSource()); m.GetType() == nodev1.Mount_VOLUME && err == nil && len(v.Options) > 0 {
			names = append(names, v.Name)
		}
	}
	if len(names) == 0 {
		return
	}
	s.goBackground(func(context.Context) { s.warnOf(c, s.unmountUnused(names), "unmount volumes") })
}

// unmountUnused unmounts those of some volumes that no running container has.
func (s *Server) unmountUnused(names []string) error {
	used := map[string]bool{}
	for _, other := range s.sandboxes.Containers() {
		if !running(other) {
			continue
		}
		for _, m := range s.specOf(other).GetMounts() {
			used[m.GetSource()] = used[m.GetSource()] || m.GetType() == nodev1.Mount_VOLUME
		}
	}
	for _, name := range names {
		if used[name] {
			continue
		}
		if err := s.volumes.Unmount(name); err != nil {
			return err
		}
	}
	return nil
}
