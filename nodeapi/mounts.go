package nodeapi

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// makeBindSources makes missing folders of -v, and refuses missing ones of
// --mount, as docker does.
func makeBindSources(mounts []*nodev1.Mount) error {
	for _, m := range mounts {
		if m.GetType() != nodev1.Mount_BIND {
			continue
		}
		_, err := os.Stat(m.GetSource())
		switch {
		case err == nil:
		case !errors.Is(err, fs.ErrNotExist):
			return failf(errdefs.ErrInvalidArgument, "invalid mount config for type \"bind\": %v", err)
		case !m.GetCreateSource():
			return failf(errdefs.ErrInvalidArgument,
				"invalid mount config for type \"bind\": bind source path does not exist: %s", m.GetSource())
		default:
			if err := os.MkdirAll(m.GetSource(), 0o755); err != nil {
				return failf(errdefs.ErrInvalidArgument, "error while creating mount source path '%s': %v", m.GetSource(), err)
			}
		}
	}
	return nil
}

// mountConfigs turns mounts into CRI's, and adds the network's files.
func mountConfigs(m *making) ([]*runtime.Mount, error) {
	var out []*runtime.Mount
	taken := map[string]bool{}
	for i, mount := range m.spec.GetMounts() {
		p, err := propagation(mount.GetPropagation())
		if err != nil {
			return nil, err
		}
		c := &runtime.Mount{ContainerPath: mount.GetTarget(), Readonly: mount.GetReadOnly(), Propagation: p}
		if err := m.server.readRecursively(mount, c); err != nil {
			return nil, err
		}
		switch mount.GetType() {
		case nodev1.Mount_BIND:
			c.HostPath = mount.GetSource()
		case nodev1.Mount_VOLUME:
			c.HostPath = mount.GetPath()
			if mount.GetSubpath() != "" {
				// Who has the volume could put a link in the folder's place.
				c.HostPath = m.server.files.part(m.key, i)
			}
		case nodev1.Mount_TMPFS:
			// The bind into the container would lose what the tmpfs has been mounted with.
			c.HostPath, c.MountOptions = m.server.files.tmpfs(m.key, i), tmpfsForbids(mount)
		case nodev1.Mount_IMAGE:
			c.Image = &runtime.ImageSpec{Image: mount.GetSource()}
			c.ImageSubPath = mount.GetSubpath()
			c.Readonly = true
		}
		taken[path.Clean(mount.GetTarget())] = true
		out = append(out, c)
	}
	out = append(out, networkMounts(m, taken)...)
	for _, c := range out {
		// Owners are those that the container's IDs are, as on the host. What
		// an image has is translated already.
		if m.users != nil && c.GetImage() == nil {
			c.UidMappings, c.GidMappings = m.users.GetUids(), m.users.GetGids()
		}
	}
	return out, nil
}

// readRecursively makes a read-only mount read-only with all that is mounted
// below it, as docker does where the kernel can.
func (s *Server) readRecursively(mount *nodev1.Mount, c *runtime.Mount) error {
	private := c.GetPropagation() == runtime.MountPropagation_PROPAGATION_PRIVATE
	if mount.GetReadOnlyForceRecursive() && (!s.config.RecursiveReadOnly || !private) {
		return failf(errdefs.ErrInvalidArgument, "invalid mount config for type \"bind\": %s cannot be mounted read-only recursively", mount.GetSource())
	}
	kind := mount.GetType()
	c.RecursiveReadOnly = (kind == nodev1.Mount_BIND || kind == nodev1.Mount_VOLUME) && mount.GetReadOnly() && private &&
		s.config.RecursiveReadOnly && !mount.GetNonRecursive() && !mount.GetReadOnlyNonRecursive()
	return nil
}

// propagation turns docker's words into CRI's enumeration.
func propagation(word string) (runtime.MountPropagation, error) {
	switch strings.TrimPrefix(word, "r") {
	case "", "private":
		return runtime.MountPropagation_PROPAGATION_PRIVATE, nil
	case "slave":
		return runtime.MountPropagation_PROPAGATION_HOST_TO_CONTAINER, nil
	case "shared":
		return runtime.MountPropagation_PROPAGATION_BIDIRECTIONAL, nil
	}
	return 0, failf(errdefs.ErrInvalidArgument, "invalid mount config: invalid propagation mode: %s", word)
}
