package checkpoint

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Content is what goes into an archive.
type Content struct {
	Config Config
	Spec   *specs.Spec
	// Images is the folder that CRIU wrote to.
	Images string
	// Rootfs is the file of the writable layer's tar; empty leaves it out.
	Rootfs string
}

// Write writes an archive to w. It ends when ctx does.
func Write(ctx context.Context, w io.Writer, c Content) error {
	out := tar.NewWriter(w)
	for _, part := range []struct {
		name  string
		value any
	}{{ConfigName, c.Config}, {SpecName, c.Spec}} {
		data, err := json.Marshal(part.value)
		if err != nil {
			return fmt.Errorf("encode %s: %w", part.name, err)
		}
		if len(data) > jsonLimit {
			return fmt.Errorf("%s is larger than %d bytes: %w", part.name, jsonLimit, errdefs.ErrResourceExhausted)
		}
		if err := writeFile(out, part.name, bytes.NewReader(data), int64(len(data)), c.Config.CheckpointedAt); err != nil {
			return err
		}
	}
	if err := writeImages(ctx, out, c); err != nil {
		return err
	}
	if c.Rootfs != "" {
		if err := copyFile(ctx, out, c.Rootfs, RootfsName, c.Config.CheckpointedAt); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return out.Close()
}

// writeImages writes CRIU's files, in order of their names.
func writeImages(ctx context.Context, out *tar.Writer, c Content) error {
	entries, err := os.ReadDir(c.Images)
	if err != nil {
		return err
	}
	header := &tar.Header{Typeflag: tar.TypeDir, Name: ImagesName + "/", Mode: 0o700, ModTime: c.Config.CheckpointedAt}
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue // a link to the parent's images, which there is not
		}
		if err := copyFile(ctx, out, path.Join(c.Images, e.Name()), path.Join(ImagesName, e.Name()), c.Config.CheckpointedAt); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(ctx context.Context, out *tar.Writer, from, to string, at time.Time) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return writeFile(out, to, untilDone{ctx, f}, st.Size(), at)
}

func writeFile(out *tar.Writer, name string, r io.Reader, size int64, at time.Time) error {
	err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: size, ModTime: at})
	if err == nil {
		_, err = io.CopyN(out, r, size)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// untilDone reads until its context is done: an image of a memory takes long.
type untilDone struct {
	ctx context.Context
	io.Reader
}

// Read is io.Reader's.
func (u untilDone) Read(p []byte) (int, error) {
	if err := context.Cause(u.ctx); err != nil {
		return 0, err
	}
	return u.Reader.Read(p)
}
