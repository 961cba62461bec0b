package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/atomicfile"
)

// podCheckpointName is the file in a pod's checkpoint that tells of the rest.
const podCheckpointName = "pod.json"

// podCheckpointVersion is that of the files written.
const podCheckpointVersion = 1

// podCheckpoint is the content of that file.
type podCheckpoint struct {
	Version        int       `json:"version"`
	ID             string    `json:"id"`
	Namespace      string    `json:"namespace"`
	Name           string    `json:"name"`
	UID            string    `json:"uid"`
	Handler        string    `json:"handler"`
	CheckpointedAt time.Time `json:"checkpointedAt"`
	// Containers are in the order of the request.
	Containers []podCheckpointContainer `json:"containers"`
}

type podCheckpointContainer struct {
	Name string `json:"name"`
	// Archive is the name of the container's archive beside this file.
	Archive string `json:"archive"`
}

// CheckpointPod writes checkpoints of the containers of a pod, all of the same
// moment, into the existing, empty folder output. The IDs must be those of all
// containers of the pod that run. On an error the folder is empty again.
func (m *Manager) CheckpointPod(ctx context.Context, podID, output string, containerIDs []string) error {
	p, err := m.findPod(podID)
	if err != nil {
		return fmt.Errorf("checkpoint pod: %w", err)
	}
	if err := m.checkpointPod(ctx, p, output, containerIDs); err != nil {
		return fmt.Errorf("checkpoint pod %s: %w", p.get().ID, err)
	}
	return nil
}

func (m *Manager) checkpointPod(ctx context.Context, p *pod, output string, ids []string) error {
	if s := p.get(); s.State != PodReady {
		return fmt.Errorf("it is %s: %w", s.State, errdefs.ErrFailedPrecondition)
	}
	chosen, err := m.chooseContainers(p, ids)
	if err != nil {
		return err
	}
	if err := checkOutput(output); err != nil {
		return err
	}
	ordered := slices.Clone(chosen)
	run := &checkpointing{
		freezer: newFreezer(m, chosen),
		work:    filepath.Join(output, "work"),
		write: func(ctx context.Context, r *checkpointing) error {
			return r.writePod(ctx, p, ordered, output)
		},
	}
	err = m.attend(ctx, run.run)
	if err != nil {
		err = errors.Join(err, emptyFolder(output))
	}
	return err
}

// chooseContainers finds the containers, which must be all that run.
func (m *Manager) chooseContainers(p *pod, ids []string) ([]*container, error) {
	var chosen []*container
	for _, id := range ids {
		c, err := m.findContainer(id)
		if err != nil {
			return nil, err
		}
		s := c.get()
		switch {
		case c.pod != p:
			return nil, fmt.Errorf("container %s is of pod %s: %w", s.ID, s.PodID, errdefs.ErrInvalidArgument)
		case !s.State.alive():
			return nil, fmt.Errorf("container %s is %s: %w", s.ID, s.State, errdefs.ErrFailedPrecondition)
		case slices.Contains(chosen, c):
			return nil, fmt.Errorf("container %s is named twice: %w", s.ID, errdefs.ErrInvalidArgument)
		}
		chosen = append(chosen, c)
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("no containers are named: %w", errdefs.ErrInvalidArgument)
	}
	for _, c := range m.children(p) {
		s := c.get()
		if s.State.alive() && !slices.Contains(chosen, c) {
			return nil, fmt.Errorf("container %s runs and is not named: %w", s.ID, errdefs.ErrFailedPrecondition)
		}
	}
	return chosen, nil
}

// checkOutput refuses a folder that is not there or not empty.
func checkOutput(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("output path %q is not absolute: %w", dir, errdefs.ErrInvalidArgument)
	}
	st, err := os.Lstat(dir)
	if err != nil || !st.IsDir() {
		return fmt.Errorf("output path %q is no folder: %w", dir, errdefs.ErrInvalidArgument)
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if names, err := f.Readdirnames(1); err == nil {
		return fmt.Errorf("output path %q is not empty, it has %q: %w", dir, names[0], errdefs.ErrInvalidArgument)
	} else if err != io.EOF {
		return err
	}
	return nil
}

// emptyFolder removes what is in a folder, and not the folder.
func emptyFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// writePod writes the archives, and last the file that tells of them.
func (r *checkpointing) writePod(ctx context.Context, p *pod, containers []*container, output string) error {
	s := p.get()
	meta := s.Config.GetMetadata()
	told := podCheckpoint{
		Version: podCheckpointVersion, ID: s.ID, Namespace: meta.GetNamespace(), Name: meta.GetName(),
		UID: meta.GetUid(), Handler: s.Handler, CheckpointedAt: r.at,
	}
	for i, c := range containers {
		// A container's name need not be fit for a file's.
		archive := strconv.Itoa(i) + ".tar"
		if err := r.writeArchive(ctx, c, filepath.Join(output, archive)); err != nil {
			return err
		}
		name := c.get().Config.GetMetadata().GetName()
		told.Containers = append(told.Containers, podCheckpointContainer{Name: name, Archive: archive})
	}
	data, err := json.Marshal(told)
	if err != nil {
		return err
	}
	return atomicfile.WriteSync(filepath.Join(output, podCheckpointName), data, 0o600)
}
