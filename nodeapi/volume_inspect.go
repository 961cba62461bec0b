package nodeapi

import (
	"context"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// Inspect tells of one volume.
func (s *volumes) Inspect(_ context.Context, req *nodev1.InspectVolumeRequest) (*nodev1.Volume, error) {
	v, err := s.findVolume(req.GetName())
	if err != nil {
		return nil, err
	}
	return s.volumeMessage(v, s.volumeUses()), nil
}
