package nodeapi

import (
	"sync"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/imageservice"
	"google.golang.org/grpc"
)

// pullStream is the server's side of a Pull call.
type pullStream = grpc.ServerStreamingServer[nodev1.PullResponse]

// Pull fetches an image and tells how far it is.
func (s *images) Pull(req *nodev1.PullRequest, stream pullStream) error {
	if _, err := reference.ParseDockerRef(req.GetRef()); err != nil {
		return failf(errdefs.ErrInvalidArgument, "%v", err)
	}
	if err := checkPlatform(req.GetPlatform()); err != nil {
		return err
	}
	ctx, cancel := s.bound(stream.Context())
	defer cancel()
	var result imageservice.PullResult
	// An image is newer than what a name meant before also when all its
	// layers were here under another name.
	before, _ := s.images.Image(ctx, req.GetRef())
	err := s.tellProgress(func(tell func(imageservice.Progress)) (err error) {
		result, err = s.images.Pull(ctx, imageservice.PullRequest{
			Ref: req.GetRef(), Platform: req.GetPlatform(), Auth: authOf(req.GetAuth()), Progress: tell,
		})
		return err
	}, func(p *nodev1.PullProgress) error {
		return stream.Send(&nodev1.PullResponse{Message: &nodev1.PullResponse_Progress{Progress: p}})
	})
	if err != nil {
		return err
	}
	return stream.Send(&nodev1.PullResponse{Message: &nodev1.PullResponse_Result{Result: &nodev1.PullResult{
		Id: result.Image.ID, Digest: result.Digest, New: result.New || before.ID != result.Image.ID,
	}}})
}

// authOf is a client's credentials as package imageservice has them.
func authOf(a *nodev1.Auth) imageservice.Auth {
	return imageservice.Auth{
		Username: a.GetUsername(), Password: a.GetPassword(), Auth: a.GetAuth(), ServerAddress: a.GetServerAddress(),
		IdentityToken: a.GetIdentityToken(), RegistryToken: a.GetRegistryToken(),
	}
}

// news holds what a client has not been told yet: each change of status, but
// of a status that only grows the newest. It never blocks the pull, and holds
// at most a few entries for each blob.
type news struct {
	// ready holds a token while there is something to send.
	ready chan struct{}

	mu      sync.Mutex
	pending []imageservice.Progress
}

func newNews() *news { return &news{ready: make(chan struct{}, 1)} }

// put adds one change.
func (n *news) put(p imageservice.Progress) {
	n.mu.Lock()
	defer n.mu.Unlock()
	replaced := false
	for i := len(n.pending) - 1; i >= 0; i-- {
		if n.pending[i].Digest != p.Digest {
			continue
		}
		if n.pending[i].Status == p.Status {
			n.pending[i], replaced = p, true
		}
		break
	}
	if !replaced {
		n.pending = append(n.pending, p)
	}
	select {
	case n.ready <- struct{}{}:
	default:
	}
}

// send sends what is pending.
func (n *news) send(to func(*nodev1.PullProgress) error) error {
	n.mu.Lock()
	pending := n.pending
	n.pending = nil
	n.mu.Unlock()
	for _, p := range pending {
		if err := to(progressMessage(p)); err != nil {
			return err
		}
	}
	return nil
}
