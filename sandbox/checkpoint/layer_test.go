package checkpoint

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// An upper folder becomes a layer: deletions and opaque folders as OCI writes
// them, links as they are, whatever they point to.
func TestWriteLayer(t *testing.T) {
	testenv.Root(t)
	upper := t.TempDir()
	at := func(name string) string { return filepath.Join(upper, name) }
	for _, err := range []error{
		os.Mkdir(at("dir"), 0o750), os.WriteFile(at("dir/file"), []byte("text"), 0o640),
		unix.Setxattr(at("dir"), opaqueXattr, []byte("y"), 0),
		unix.Setxattr(at("dir/file"), "security.capability", capability, 0),
		unix.Mknod(at("gone"), unix.S_IFCHR, 0), unix.Mkfifo(at("fifo"), 0o600),
		os.Symlink("/etc/shadow", at("link")), unix.Mknod(at("socket"), unix.S_IFSOCK|0o600, 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var buf bytes.Buffer
	if err := WriteLayer(t.Context(), &buf, upper); err != nil {
		t.Fatal(err)
	}
	got := map[string]*tar.Header{}
	for r := tar.NewReader(&buf); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = h
	}
	for name, kind := range map[string]byte{
		"dir/": tar.TypeDir, "dir/.wh..wh..opq": tar.TypeReg, "dir/file": tar.TypeReg,
		".wh.gone": tar.TypeReg, "fifo": tar.TypeFifo, "link": tar.TypeSymlink,
	} {
		if got[name] == nil || got[name].Typeflag != kind {
			t.Errorf("%s is %+v", name, got[name])
		}
	}
	if len(got) != 6 {
		t.Errorf("there are %d entries", len(got))
	}
	if got["link"].Linkname != "/etc/shadow" || got["dir/file"].Uname != "" ||
		got["dir/file"].PAXRecords[paxXattr+"security.capability"] != string(capability) {
		t.Errorf("file %+v, link %+v", got["dir/file"], got["link"])
	}
}

// capability is an xattr of revision 2 that grants CAP_NET_BIND_SERVICE.
var capability = []byte{0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
