package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"

	v1 "github.com/nodeagent/nodeagent/api/supervisor/v1"
	"github.com/nodeagent/nodeagent/supervisor"
)

// Delete kills what is left of a container and removes all that is known of
// it. An unknown container is deleted already.
func (s *Server) Delete(ctx context.Context, req *v1.ContainerRequest) (*v1.DeleteResponse, error) {
	c, err := s.find(req.Id)
	if err != nil {
		return &v1.DeleteResponse{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	// A start under way ends first.
	if err := c.acquire(ctx); err != nil {
		return nil, fmt.Errorf("delete %w", err)
	}
	defer c.release()
	s.mu.Lock()
	known := s.containers[c.id] == c
	s.mu.Unlock()
	if !known {
		return &v1.DeleteResponse{}, nil
	}
	exit, err := s.remove(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("delete container %s: %w", c.id, err)
	}
	return &v1.DeleteResponse{Exit: exitMessage(exit)}, nil
}

// remove ends a container and removes it. The record goes last, so that the
// next supervisor finds what this one did not finish.
func (s *Server) remove(ctx context.Context, c *container) (*supervisor.Exit, error) {
	if err := killCgroups(ctx, c.record.Cgroups); err != nil {
		return nil, err
	}
	select {
	case <-c.ended:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for its end: %w", ctx.Err())
	}
	if err := s.destroy(c.record); err != nil {
		return nil, err
	}
	c.mu.Lock()
	exit := c.exit
	c.mu.Unlock()
	s.mu.Lock()
	delete(s.containers, c.id)
	s.mu.Unlock()
	s.trim.touch()
	return exit, nil
}

// destroy removes libcontainer's state, the cgroup, and our own files of a
// container that has no process left.
func (s *Server) destroy(rec record) error {
	handle, err := libcontainer.Load(s.root(), rec.ID)
	if err == nil {
		err = handle.Destroy()
	} else {
		// No state was written, or it is broken; the paths we know.
		err = errors.Join(
			cgroups.RemovePaths(rec.Cgroups),
			os.RemoveAll(filepath.Join(s.root(), rec.ID)),
		)
	}
	if err != nil {
		return err
	}
	return errors.Join(
		os.RemoveAll(filepath.Join(s.dir(execsDir), rec.ID)),
		os.RemoveAll(filepath.Join(s.dir("containers-io"), rec.ID)),
		removeFile(s.exitPath(rec.ID)),
		removeFile(s.recordPath(rec.ID)),
	)
}
