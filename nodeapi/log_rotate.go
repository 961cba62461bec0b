package nodeapi

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/docker/go-units"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/nodeapi/crilog"
	"github.com/nodeagent/nodeagent/sandbox"
)

// rotationPause is how long it is between two looks at the sizes of logs.
const rotationPause = 2 * time.Second

// rotation is what the options of a log say of it; zero size is none.
type rotation struct {
	size  int64
	files int
}

// rotationOf reads the options, which were checked.
func rotationOf(log *nodev1.Log) rotation {
	r := rotation{files: 1}
	if size, err := units.FromHumanSize(log.GetOptions()["max-size"]); err == nil {
		r.size = size
	}
	if files, err := strconv.Atoi(log.GetOptions()["max-file"]); err == nil && files > 1 {
		r.files = files
	}
	return r
}

// rotateLogs rotates the logs of containers that asked for it when they have
// grown too large, until ctx is done.
func (s *Server) rotateLogs(ctx context.Context) {
	tick := time.NewTicker(rotationPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, c := range s.sandboxes.Containers() {
			if c.Owner != sandbox.OwnerNodectl || !running(c) || c.LogPath == "" {
				continue
			}
			if r := rotationOf(s.specOf(c).GetLog()); r.size > 0 {
				s.warnOf(c, s.rotateLog(ctx, c, r), "rotate log")
			}
		}
	}
}

// rotateLog rotates one log where it is too large. One that is not there was
// moved by an agent that was killed then: the supervisor still writes to it
// under its new name.
func (s *Server) rotateLog(ctx context.Context, c sandbox.Container, r rotation) error {
	info, err := os.Stat(c.LogPath)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.sandboxes.ReopenLog(ctx, c.ID)
	case err != nil || info.Size() < r.size:
		return err
	}
	for n := r.files - 1; n > 1; n-- {
		if err := os.Rename(crilog.Rotated(c.LogPath, n-1), crilog.Rotated(c.LogPath, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if r.files > 1 {
		err = os.Rename(c.LogPath, crilog.Rotated(c.LogPath, 1))
	} else {
		err = os.Remove(c.LogPath)
	}
	if err != nil {
		return err
	}
	return s.sandboxes.ReopenLog(ctx, c.ID)
}
