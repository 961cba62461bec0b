package nodeapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/internal/atomicfile"
	"github.com/nodeagent/nodeagent/sandbox"
	"github.com/sirupsen/logrus"
)

// holdsDir is the folder, among those of containers, with a file for each
// container that is held still. Should the agent be killed meanwhile, the
// next one lets them go on.
const holdsDir = "holds"

func (f files) hold(id string) string { return filepath.Join(f.state, holdsDir, id) }

// holdStill pauses a running container for as long as it is read; several
// may do so at once. One that does not run needs no holding.
func (s *Server) holdStill(ctx context.Context, c sandbox.Container) (resume func(), err error) {
	// stillMu is held while the container freezes, which is short, so that
	// who comes second does not read before it is still.
	s.stillMu.Lock()
	defer s.stillMu.Unlock()
	if s.still[c.ID] == 0 {
		if c, err = s.sandboxes.Container(c.ID); err != nil || c.State != sandbox.ContainerRunning {
			return func() {}, err
		}
		if err := s.freeze(ctx, c.ID); err != nil {
			return nil, err
		}
	}
	s.still[c.ID]++
	return func() {
		s.stillMu.Lock()
		defer s.stillMu.Unlock()
		if s.still[c.ID]--; s.still[c.ID] == 0 {
			delete(s.still, c.ID)
			s.letGo(context.WithoutCancel(ctx), c.ID)
		}
	}, nil
}

// freeze notes that a container is held, and pauses it.
func (s *Server) freeze(ctx context.Context, id string) error {
	mark := s.files.hold(id)
	err := os.MkdirAll(filepath.Dir(mark), 0o700)
	if err == nil {
		err = atomicfile.Write(mark, nil, 0o600)
	}
	if err == nil {
		err = s.sandboxes.PauseContainer(ctx, id)
	}
	if err != nil {
		s.letGo(context.WithoutCancel(ctx), id)
		return fmt.Errorf("hold container %s still: %w", id, err)
	}
	return nil
}

// letGo lets a container go on that was held still. One that has ended, or
// was removed, needs nothing.
func (s *Server) letGo(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	err := s.sandboxes.ResumeContainer(ctx, id)
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
		logrus.WithError(err).WithField("container", id).Warn("a container that was held still stays so")
		return // the mark stays, for the next agent
	}
	if err := os.Remove(s.files.hold(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		logrus.WithError(err).WithField("container", id).Warn("cannot forget that a container was held still")
	}
}

// held lists the containers that an earlier agent held still.
func (f files) held() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(f.state, holdsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var ids []string
	for _, e := range entries {
		if !atomicfile.IsTemp(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, err
}

// letGoHeld lets all containers go on that an earlier agent held still.
func (s *Server) letGoHeld(ctx context.Context, ids []string) {
	for _, id := range ids {
		s.letGo(ctx, id)
	}
}
