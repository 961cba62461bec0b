package nodeapi

import (
	"context"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/volume"
)

// Create makes a volume.
func (s *volumes) Create(_ context.Context, req *nodev1.CreateVolumeRequest) (*nodev1.Volume, error) {
	if err := checkVolumeDriver(req.GetDriver()); err != nil {
		return nil, err
	}
	v, made, err := s.volumes.Create(volume.Spec{Name: req.GetName(), Options: req.GetOptions(), Labels: req.GetLabels()})
	if err != nil {
		return nil, said(err)
	}
	if made {
		s.emit(eventVolume, "create", v.Name, map[string]string{"driver": volume.Driver})
	}
	return s.volumeMessage(v, s.volumeUses()), nil
}

// checkVolumeDriver refuses drivers that are not there.
func checkVolumeDriver(name string) error {
	if name != "" && name != volume.Driver {
		return failf(errdefs.ErrNotFound, "error looking up volume plugin %s: plugin %q not found", name, name)
	}
	return nil
}
