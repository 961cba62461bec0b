package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/internal/filetree"
)

// in copies into the container.
func (c *copying) in(ctx context.Context, source, target string) error {
	to, err := c.destination(ctx, target)
	if err != nil {
		return err
	}
	if source == "-" {
		if !to.isDir {
			return fmt.Errorf("destination \"%s:%s\" must be a directory", c.container, target)
		}
		in, err := command.Plain(c.cli.In)
		if err != nil {
			return err
		}
		return c.send(ctx, to.path, func(w io.Writer) error {
			_, err := io.Copy(w, in)
			return err
		})
	}
	abs, info, err := localSource(source, c.flags.follow)
	if err != nil {
		return err
	}
	folder, name, err := into(source, info.IsDir(), to, func(p string) string {
		if p == source {
			return filepath.Base(abs)
		}
		return path.Base(path.Clean("/" + p))
	}, path.Dir)
	if err != nil {
		return err
	}
	root, err := os.Open("/")
	if err != nil {
		return err
	}
	defer root.Close()
	return c.send(ctx, folder, func(w io.Writer) error {
		return filetree.Read(ctx, w, root, abs, filetree.ReadOptions{Follow: c.flags.follow || contents(source), Name: name})
	})
}

// localSource finds what is copied.
func localSource(source string, follow bool) (abs string, info os.FileInfo, err error) {
	if abs, err = filepath.Abs(source); err != nil {
		return "", nil, err
	}
	stat := os.Lstat
	if follow || contents(source) || source[len(source)-1] == '/' {
		stat = os.Stat
	}
	info, err = stat(abs)
	return abs, info, err
}

// send sends what write writes, a tar, to be unpacked in a folder of the
// container.
func (c *copying) send(ctx context.Context, folder string, write func(io.Writer) error) error {
	stream, err := c.client.CopyTo(ctx)
	if err != nil {
		return err
	}
	start := &nodev1.CopyToStart{Container: c.container, Path: folder, Own: c.flags.archive}
	err = stream.Send(&nodev1.CopyToRequest{Message: &nodev1.CopyToRequest_Start{Start: start}})
	if err == nil {
		err = write(&tarSender{c, stream})
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	// Where sending ended early, the answer tells why.
	_, err = stream.CloseAndRecv()
	return err
}

// tarSender sends a tar in messages.
type tarSender struct {
	c      *copying
	stream nodev1.Containers_CopyToClient
}

// Write sends p.
func (s *tarSender) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		n := min(command.ChunkSize, len(p)-sent)
		err := s.stream.Send(&nodev1.CopyToRequest{Message: &nodev1.CopyToRequest_Data{Data: p[sent : sent+n]}})
		if err != nil {
			return sent, err
		}
		sent += n
		s.c.size += int64(n)
	}
	return len(p), nil
}
