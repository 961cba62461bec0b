package nodeapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/imageservice"
	"github.com/nodeagent/nodeagent/imageservice/imageconfig"
	"github.com/nodeagent/nodeagent/imageservice/pack"
	"github.com/nodeagent/nodeagent/sandbox"
	"golang.org/x/sys/unix"
)

// Commit makes an image of a container: its image with what the container
// wrote as one layer more. Nothing of the container is executed.
func (s *containers) Commit(ctx context.Context, req *nodev1.CommitRequest) (*nodev1.CommitResponse, error) {
	if err := checkNewName(req.GetRef()); err != nil {
		return nil, err
	}
	if err := new(imageconfig.Config).Apply(req.GetChanges()); err != nil {
		return nil, changeError(err)
	}
	c, err := s.find(req.GetContainer())
	if err != nil {
		return nil, err
	}
	spec := s.commitSpec(c)
	resume := func() {}
	if !req.GetNoPause() {
		hold, err := s.holdStill(ctx, c)
		if err != nil {
			return nil, err
		}
		resume = sync.OnceFunc(hold)
	}
	defer resume()
	img, err := s.images.Commit(ctx, imageservice.CommitRequest{
		ImageID: c.ImageID, Ref: req.GetRef(), Author: req.GetAuthor(), Comment: req.GetComment(),
		CreatedBy: strings.Join(spec.GetCommand(), " "), Changes: req.GetChanges(),
		Config: func(config *imageconfig.Config) { commitConfig(config, spec) },
		Layer: func(w io.Writer) error {
			defer resume() // what follows needs only what was read
			return s.writeLayer(ctx, w, c)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("commit container %s: %w", c.ID, err)
	}
	s.emitContainer("commit", c, "imageID", img.ID, "imageRef", withDefaultTag(req.GetRef()), "comment", req.GetComment())
	return &nodev1.CommitResponse{Id: img.ID}, nil
}

// changeError gives an error about a change the words that are for a person.
func changeError(err error) error {
	var wrong *imageconfig.ChangeError
	if errors.As(err, &wrong) {
		return failf(errdefs.ErrInvalidArgument, "%s", wrong.Text)
	}
	return err
}

// checkNewName refuses what no new image may be called; nothing is fine.
func checkNewName(ref string) error {
	if ref == "" {
		return nil
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return failf(errdefs.ErrInvalidArgument, "%v", err)
	}
	if _, ok := named.(reference.Digested); ok {
		return failf(errdefs.ErrInvalidArgument, "cannot import digest reference")
	}
	return nil
}

// commitSpec is what a container was made with. The environment of one of
// kubelet's is not among it: it holds what is secret.
func (s *Server) commitSpec(c sandbox.Container) *nodev1.ContainerSpec {
	pod, err := s.sandboxes.Pod(c.PodID)
	if err != nil {
		return &nodev1.ContainerSpec{}
	}
	if spec := s.spec(pod); spec != nil {
		return spec
	}
	spec := criSpec(c, pod)
	spec.Labels, spec.WorkingDir, spec.StopSignal = nil, "", ""
	return spec
}

// commitConfig puts into an image's configuration what its container was
// made with.
func commitConfig(config *imageconfig.Config, spec *nodev1.ContainerSpec) {
	if spec.GetSetEntrypoint() || len(spec.GetEntrypoint()) > 0 {
		config.Entrypoint, config.Cmd = spec.GetEntrypoint(), nil
	}
	if len(spec.GetCommand()) > 0 {
		config.Cmd = spec.GetCommand()
	}
	for _, variable := range spec.GetEnv() {
		name, value, _ := strings.Cut(variable, "=")
		config.Env = imageconfig.SetEnv(config.Env, name, value)
	}
	for _, one := range []struct {
		to   *string
		from string
	}{{&config.User, spec.GetUser()}, {&config.WorkingDir, spec.GetWorkingDir()}, {&config.StopSignal, spec.GetStopSignal()}} {
		if one.from != "" {
			*one.to = one.from
		}
	}
	if len(spec.GetLabels()) > 0 {
		config.Labels = spec.GetLabels()
	}
	for _, port := range spec.GetNetwork().GetExpose() {
		if config.ExposedPorts == nil {
			config.ExposedPorts = map[string]struct{}{}
		}
		config.ExposedPorts[port] = struct{}{}
	}
	for _, m := range spec.GetMounts() {
		if m.GetType() != nodev1.Mount_VOLUME || !m.GetAnonymous() || m.GetDetailed() {
			continue
		}
		if config.Volumes == nil {
			config.Volumes = map[string]struct{}{}
		}
		config.Volumes[m.GetTarget()] = struct{}{}
	}
	if h := spec.GetHealth(); len(h.GetTest()) > 0 {
		config.Healthcheck = &imageconfig.Healthcheck{
			Test: h.GetTest(), Interval: h.GetInterval().AsDuration(), Timeout: h.GetTimeout().AsDuration(),
			StartPeriod: h.GetStartPeriod().AsDuration(), StartInterval: h.GetStartInterval().AsDuration(), Retries: int(h.GetRetries()),
		}
	}
}

// writeLayer writes a container's own layer as a tar, which of one on a folder
// of the host is all of the folder.
func (s *Server) writeLayer(ctx context.Context, w io.Writer, c sandbox.Container) error {
	if c.Folder != "" {
		root, err := s.sandboxes.OpenRootfs(ctx, c.ID)
		if err != nil {
			return err
		}
		defer root.Close()
		return pack.Tree(ctx, w, root, pack.Options{Owner: s.ownersOf(c)})
	}
	dirs, err := s.layers.LayerDirs(c.SnapshotKey)
	if err != nil {
		return err
	}
	root, err := os.OpenFile(dirs[0], os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	return pack.Tree(ctx, w, root, pack.Options{Layer: true, Owner: s.ownersOf(c)})
}
