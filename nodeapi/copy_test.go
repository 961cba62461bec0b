package nodeapi

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"google.golang.org/grpc/codes"
)

// copyFrom gets a path of a container.
func (n *node) copyFrom(req *nodev1.CopyFromRequest) (*nodev1.PathStat, []byte, error) {
	n.t.Helper()
	stream, err := n.containers.CopyFrom(n.ctx, req)
	if err != nil {
		n.t.Fatal(err)
	}
	var stat *nodev1.PathStat
	var data []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stat, data, nil
		}
		if err != nil {
			return nil, nil, err
		}
		if m.GetStat() != nil {
			stat = m.GetStat()
		}
		data = append(data, m.GetData()...)
	}
}

// copyTo puts a file into a folder of a container.
func (n *node) copyTo(container, folder, name string) error {
	n.t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: 3})
	_, _ = io.WriteString(w, "new")
	_ = w.Close()
	stream, err := n.containers.CopyTo(n.ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	_ = stream.Send(&nodev1.CopyToRequest{Message: &nodev1.CopyToRequest_Start{Start: &nodev1.CopyToStart{Container: container, Path: folder}}})
	_ = stream.Send(&nodev1.CopyToRequest{Message: &nodev1.CopyToRequest_Data{Data: b.Bytes()}})
	_, err = stream.CloseAndRecv()
	return err
}

func TestCopy(t *testing.T) {
	n := newNode(t)
	spec := withVolumes("data")
	bound := t.TempDir()
	spec.Mounts = append(spec.Mounts, &nodev1.Mount{Source: bound, Target: "/bound", ReadOnly: true}, &nodev1.Mount{Type: nodev1.Mount_TMPFS, Target: "/t"})
	id := n.create("c", spec)
	rootfs := t.TempDir()
	if err := n.sandboxes.setRootfs(id, rootfs); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(rootfs, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := n.copyTo("c", "/etc", "made"); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(rootfs, "etc/made")); err != nil || string(text) != "new" {
		t.Errorf("%q %v", text, err)
	}
	stat, data, err := n.copyFrom(&nodev1.CopyFromRequest{Container: "c", Path: "/etc"})
	if err != nil || stat.GetName() != "etc" || !bytes.Contains(data, []byte("etc/made")) {
		t.Errorf("%v %d bytes, %v", stat, len(data), err)
	}
	// A stopped container's mounts are where they come from.
	if err := n.copyTo("c", "/data", "v"); err != nil {
		t.Fatal(err)
	}
	v, err := n.volumes.Inspect(n.ctx, &nodev1.InspectVolumeRequest{Name: "data"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(v.GetMountpoint(), "v")); err != nil {
		t.Error(err)
	}
	if stat, _, err := n.copyFrom(&nodev1.CopyFromRequest{Container: "c", Path: "/data/v", StatOnly: true}); err != nil || stat.GetSize() != 3 {
		t.Errorf("%v %v", stat, err)
	}
	wantError(t, n.copyTo("c", "/bound", "x"), codes.FailedPrecondition, "container rootfs or mounted volume is marked read-only")
	wantError(t, n.copyTo("c", "/t", "x"), codes.FailedPrecondition, "while the container runs only")
	wantError(t, n.copyTo("c", "/nowhere", "x"), codes.NotFound, "Could not find the file /nowhere in container c")
	wantError(t, n.copyTo("c", "/etc/made", "x"), codes.InvalidArgument, "not a directory")
	_, _, err = n.copyFrom(&nodev1.CopyFromRequest{Container: "c", Path: "/../../../../etc/shadow"})
	wantError(t, err, codes.NotFound, "Could not find the file")
	_, _, err = n.copyFrom(&nodev1.CopyFromRequest{Container: "none", Path: "/"})
	wantError(t, err, codes.NotFound, "No such container: none")
}

func TestMountAt(t *testing.T) {
	mounts := []*nodev1.Mount{{Target: "/a"}, {Target: "/a/b/"}, {Target: "/c"}}
	for name, want := range map[string][2]string{
		"/a": {"/a", ""}, "/a/x": {"/a", "/x"}, "/a/b": {"/a/b/", ""}, "/a/b/x/": {"/a/b/", "/x/"}, "a/../c/x": {"/c", "/x"}, "/ab": {"", ""}, "/": {"", "/"},
	} {
		m, rest := mountAt(mounts, name)
		if m.GetTarget() != want[0] || rest != want[1] {
			t.Errorf("%s: got %q %q", name, m.GetTarget(), rest)
		}
	}
}
