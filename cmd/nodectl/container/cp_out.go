package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/terminal"
	"github.com/nodeagent/nodeagent/internal/filetree"
)

// out copies out of the container.
func (c *copying) out(ctx context.Context, source, target string) error {
	stream, err := c.client.CopyFrom(ctx, &nodev1.CopyFromRequest{Container: c.container, Path: source, Follow: c.flags.follow})
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	in := &tarReceiver{c: c, stream: stream}
	if target == "-" {
		if terminal.Is(c.cli.Out) {
			return errors.New("refusing to write a tar archive to a terminal")
		}
		_, err := io.Copy(c.cli.Out, in)
		return err
	}
	to, err := localEnd(target)
	if err != nil {
		return err
	}
	folder, name, err := into(source, isFolder(first.GetStat()), to, func(p string) string {
		if p == source {
			return path.Base(path.Clean("/" + source))
		}
		return filepath.Base(p)
	}, filepath.Dir)
	if err != nil {
		return err
	}
	if path.Clean("/"+source) == "/" {
		// What is in the root has no folder before its name.
		if folder, err = rootTarget(folder, name); err != nil {
			return err
		}
		name = ""
	}
	root, err := os.Open(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("invalid output path: directory %q does not exist", folder)
	}
	if err != nil {
		return err
	}
	defer root.Close()
	return filetree.Write(ctx, in, root, "/", filetree.WriteOptions{Owners: c.flags.archive, Rename: name})
}

// rootTarget is the folder that what is in the root of a container goes to; it
// is made where only it is missing.
func rootTarget(folder, name string) (string, error) {
	target := filepath.Join(folder, name)
	if err := os.Mkdir(target, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("invalid output path: directory %q does not exist", folder)
		}
		return "", err
	}
	return target, nil
}

// maxLinks is how many links a local path may lead through.
const maxLinks = 40

// localEnd looks at the local path that is copied to. A link is where it leads,
// also where nothing is there yet.
func localEnd(target string) (end, error) {
	for range maxLinks {
		info, err := os.Lstat(strings.TrimRight(target, "/"))
		if err != nil || info.Mode()&fs.ModeSymlink == 0 {
			break
		}
		leads, err := os.Readlink(strings.TrimRight(target, "/"))
		if err != nil {
			return end{}, err
		}
		if !filepath.IsAbs(leads) {
			leads = filepath.Join(filepath.Dir(strings.TrimRight(target, "/")), leads)
		}
		if strings.HasSuffix(target, "/") {
			leads += "/"
		}
		target = leads
	}
	to := end{path: target}
	info, err := os.Stat(target)
	switch {
	case err == nil:
		to.exists, to.isDir = true, info.IsDir()
	case !errors.Is(err, fs.ErrNotExist):
		return to, err
	}
	if !strings.Contains(target, "/") {
		to.path = "./" + target
	}
	return to, nil
}

// tarReceiver reads the tar of a CopyFrom.
type tarReceiver struct {
	c      *copying
	stream nodev1.Containers_CopyFromClient
	rest   []byte
}

// Read returns data as it comes.
func (r *tarReceiver) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		m, err := r.stream.Recv()
		if err != nil {
			return 0, err
		}
		r.rest = m.GetData()
		r.c.size += int64(len(r.rest))
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
