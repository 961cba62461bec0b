package cri

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/imageservice"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
)

// PullImage fetches an image and answers with its ID.
func (s *Server) PullImage(ctx context.Context, req *runtime.PullImageRequest) (*runtime.PullImageResponse, error) {
	image := req.GetImage()
	if image.GetImage() == "" {
		return nil, missing("image.image")
	}
	if !s.knowsHandler(image.GetRuntimeHandler()) {
		return nil, invalid("image.runtime_handler", fmt.Sprintf("there is no %q", image.GetRuntimeHandler()))
	}
	if err := checkAuth(req.GetAuth()); err != nil {
		return nil, err
	}
	result, err := s.images.Pull(ctx, imageservice.PullRequest{
		Ref: image.GetImage(), Auth: pullAuth(req.GetAuth()), Snapshotter: s.snapshotter(image.GetRuntimeHandler()),
	})
	if err != nil {
		return nil, pullError(ctx, ofImage(err))
	}
	return &runtime.PullImageResponse{ImageRef: result.Image.ID}, nil
}

// checkAuth refuses what cannot be sent as it is.
func checkAuth(auth *runtime.AuthConfig) error {
	for _, f := range []struct{ field, value string }{
		{"server_address", auth.GetServerAddress()}, {"identity_token", auth.GetIdentityToken()}, {"registry_token", auth.GetRegistryToken()},
	} {
		if strings.ContainsFunc(f.value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return invalid("auth."+f.field, "contains a control character")
		}
	}
	pair, err := base64.StdEncoding.DecodeString(strings.TrimSpace(auth.GetAuth()))
	if err != nil || len(pair) > 0 && !bytes.ContainsRune(pair, ':') {
		return invalid("auth.auth", "is not base64 of a user and a password")
	}
	return nil
}

// pullAuth is the zero value without credentials.
func pullAuth(auth *runtime.AuthConfig) imageservice.Auth {
	return imageservice.Auth{
		Username:      auth.GetUsername(),
		Password:      auth.GetPassword(),
		Auth:          auth.GetAuth(),
		ServerAddress: auth.GetServerAddress(),
		IdentityToken: auth.GetIdentityToken(),
		RegistryToken: auth.GetRegistryToken(),
	}
}

// pullError words a registry that does not answer as kubelet knows it: it
// compares the beginning of the message, and only of code Unknown. A pull whose
// caller's time is over says that instead.
func pullError(ctx context.Context, err error) error {
	if ctx.Err() != nil || !errdefs.IsUnavailable(err) {
		return err
	}
	return status.Errorf(codes.Unknown, "%v: %v", crierrors.ErrRegistryUnavailable, err)
}
