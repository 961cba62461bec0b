package filetree

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// Owners are translated, also those that the stream does not decide.
func TestWriteTranslatesOwners(t *testing.T) {
	testenv.Root(t)
	for _, test := range []struct {
		keep     bool
		uid, gid uint32
	}{{true, 1005, 2006}, {false, 1000, 2000}} {
		var stream bytes.Buffer
		w := tar.NewWriter(&stream)
		if err := w.WriteHeader(&tar.Header{Name: "file", Typeflag: tar.TypeReg, Mode: 0o640, Uid: 5, Gid: 6}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		root, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		err = Write(t.Context(), &stream, root, "/", WriteOptions{
			Owners: test.keep, Owner: func(uid, gid int) (int, int) { return uid + 1000, gid + 2000 },
		})
		var st unix.Stat_t
		if err == nil {
			err = unix.Stat(filepath.Join(dir, "file"), &st)
		}
		if err != nil || st.Uid != test.uid || st.Gid != test.gid || st.Mode&0o777 != 0o640 {
			t.Errorf("keep %t: %d:%d %o %v", test.keep, st.Uid, st.Gid, st.Mode, err)
		}
	}
}
