package nodeapi

import (
	"context"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// Login finds out whether a registry takes credentials, and keeps none.
func (s *registries) Login(ctx context.Context, req *nodev1.LoginRequest) (*nodev1.LoginResponse, error) {
	if req.GetAuth().GetServerAddress() == "" {
		return nil, failf(errdefs.ErrInvalidArgument, "no registry is named")
	}
	token, err := s.images.Login(ctx, authOf(req.GetAuth()))
	if errdefs.IsUnauthorized(err) {
		return nil, failf(errdefs.ErrUnauthenticated, "login attempt to %s failed with status: 401 Unauthorized", req.GetAuth().GetServerAddress())
	}
	if err != nil {
		return nil, err
	}
	return &nodev1.LoginResponse{IdentityToken: token}, nil
}
