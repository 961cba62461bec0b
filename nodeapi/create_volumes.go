package nodeapi

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/volume"
	"google.golang.org/protobuf/proto"
)

// gatherMounts completes the mounts of a specification: those of other
// containers, anonymous volumes, and the volumes that the image declares.
// What a person mounts goes before what others have.
func (m *making) gatherMounts(context.Context) error {
	taken := map[string]bool{}
	for _, mount := range m.spec.GetMounts() {
		taken[path.Clean(mount.GetTarget())] = true
	}
	add := func(mount *nodev1.Mount) {
		if target := path.Clean(mount.GetTarget()); !taken[target] {
			taken[target] = true
			m.spec.Mounts = append(m.spec.Mounts, mount)
		}
	}
	for _, from := range m.spec.GetVolumesFrom() {
		mounts, err := m.server.mountsOf(from)
		if err != nil {
			return err
		}
		for _, mount := range mounts {
			add(mount)
		}
	}
	if m.image.Config != nil {
		for _, target := range slices.Sorted(maps.Keys(m.image.Config.Config.Volumes)) {
			if !path.IsAbs(target) {
				target = "/" + target
			}
			add(&nodev1.Mount{Type: nodev1.Mount_VOLUME, Target: path.Clean(target)})
		}
	}
	return validateMounts(m.spec)
}

// mountsOf gives the mounts of the container that one --volumes-from names.
func (s *Server) mountsOf(from string) ([]*nodev1.Mount, error) {
	name, mode, hasMode := strings.Cut(from, ":")
	if hasMode && mode != "ro" && mode != "rw" && mode != "z" && mode != "Z" {
		return nil, failf(errdefs.ErrInvalidArgument, "invalid mode: %s", mode)
	}
	c, err := s.find(name)
	if err != nil {
		return nil, err
	}
	var out []*nodev1.Mount
	for _, mount := range s.specOf(c).GetMounts() {
		if mount.GetType() == nodev1.Mount_TMPFS {
			continue
		}
		mount = proto.CloneOf(mount)
		mount.Anonymous, mount.NoCopy, mount.Inherited = false, true, true
		mount.ReadOnly = mount.GetReadOnly() || mode == "ro"
		out = append(out, mount)
	}
	return out, nil
}

// holdVolumes makes the volumes that are missing, and keeps all from being
// removed until the container is there.
func (m *making) holdVolumes(ctx context.Context) error {
	if err := m.nameVolumes(); err != nil {
		return err
	}
	for _, mount := range m.spec.GetMounts() {
		if mount.GetType() != nodev1.Mount_VOLUME {
			continue
		}
		if err := checkVolumeDriver(mount.GetVolumeDriver()); err != nil {
			return err
		}
		v, made, release, err := m.server.volumes.Hold(volume.Spec{
			Name: mount.GetSource(), Options: mount.GetVolumeOptions(), Labels: mount.GetVolumeLabels(), Anonymous: mount.GetAnonymous(),
		})
		if err != nil {
			return said(err)
		}
		m.releases = append(m.releases, release)
		if made {
			m.server.emit(eventVolume, "create", v.Name, map[string]string{"driver": volume.Driver})
		}
		if mount.Path, err = m.server.volumes.Mount(ctx, v.Name); err != nil {
			return failf(errdefs.ErrFailedPrecondition, "error while mounting volume '%s': %s", m.server.volumes.Path(v.Name),
				strings.TrimSuffix(err.Error(), ": "+errdefs.ErrUnavailable.Error()))
		}
		if mount.GetSubpath() != "" {
			dir, err := m.server.volumes.OpenSubfolder(v.Name, mount.GetSubpath())
			if err != nil {
				return said(err)
			}
			dir.Close()
			// For people to see; it is mounted by its descriptor.
			mount.Path = filepath.Join(mount.GetPath(), mount.GetSubpath())
		}
	}
	return nil
}

// nameVolumes names the anonymous volumes that are to be made, and notes that they
// go should the agent be killed before their container is there.
func (m *making) nameVolumes() (err error) {
	for _, mount := range m.spec.GetMounts() {
		if mount.GetType() != nodev1.Mount_VOLUME {
			continue
		}
		if mount.Anonymous = mount.GetSource() == ""; mount.GetAnonymous() {
			mount.Source = volume.NewName()
			m.madeVolumes = append(m.madeVolumes, mount.GetSource())
		}
	}
	m.volumesStay, err = m.server.volumes.Leave(m.madeVolumes)
	return err
}

// releaseVolumes ends what holdVolumes began. Volumes stay.
func (m *making) releaseVolumes() {
	for _, release := range m.releases {
		release()
	}
	m.releases = nil
}

// dropVolumes removes the anonymous volumes of a container that was not made.
func (m *making) dropVolumes(context.Context) error {
	m.releaseVolumes()
	err := m.server.removeAnonymous(m.madeVolumes)
	if err == nil && m.volumesStay != nil {
		m.volumesStay()
	}
	return err
}

// fillVolumes copies into empty volumes what the image has where they are
// mounted. Nothing of the container has run yet.
func (m *making) fillVolumes(ctx context.Context) error {
	c, err := m.server.sandboxes.Container(m.id)
	if err != nil || c.Rootfs == "" {
		return err
	}
	root, err := os.Open(c.Rootfs)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, mount := range m.spec.GetMounts() {
		if mount.GetType() != nodev1.Mount_VOLUME || mount.GetNoCopy() || mount.GetSubpath() != "" {
			continue
		}
		shared := func() bool { return len(m.server.volumeUses()[mount.GetSource()]) > 1 }
		if err := m.server.volumes.Populate(ctx, volume.PopulateRequest{
			Volume: mount.GetSource(), Root: root, Name: mount.GetTarget(), Shared: shared, Owner: m.server.ownersOf(c),
		}); err != nil {
			return fmt.Errorf("volume on %s: %w", mount.GetTarget(), err)
		}
	}
	return nil
}
