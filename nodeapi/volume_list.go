package nodeapi

import (
	"context"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// List gives all volumes by name.
func (s *volumes) List(ctx context.Context, req *nodev1.ListVolumesRequest) (*nodev1.ListVolumesResponse, error) {
	uses := s.volumeUses()
	resp := &nodev1.ListVolumesResponse{}
	for _, v := range s.volumes.List() {
		m := s.volumeMessage(v, uses)
		if req.GetSizes() {
			size, err := s.volumes.Size(ctx, v.Name)
			if err != nil {
				return nil, err
			}
			m.Size = size
		}
		resp.Volumes = append(resp.Volumes, m)
	}
	return resp, nil
}
