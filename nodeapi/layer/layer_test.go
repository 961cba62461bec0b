package layer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"golang.org/x/sys/unix"
)

// tree makes folders ("x/"), files, links ("x -> y") and whiteouts ("!x").
func tree(t *testing.T, names ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range names {
		var err error
		switch full := filepath.Join(root, name); {
		case name[0] == '!':
			err = unix.Mknod(filepath.Join(root, name[1:]), unix.S_IFCHR, 0)
		case name[0] == '@':
			err = os.Symlink("/etc", filepath.Join(root, name[1:]))
		case name[0] == '=':
			full = filepath.Join(root, name[1:])
			if err = os.Mkdir(full, 0o755); err == nil {
				err = unix.Setxattr(full, "trusted.overlay.opaque", []byte("y"), 0)
			}
		case name[len(name)-1] == '/':
			err = os.Mkdir(full, 0o755)
		default:
			err = os.WriteFile(full, nil, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// changes are those between layers, as docker writes them.
func changes(t *testing.T, upper string, lowers ...string) []string {
	t.Helper()
	var got []string
	err := Changes(context.Background(), upper, lowers, func(c Change) error {
		got = append(got, string("CAD"[c.Kind])+" "+c.Path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestChanges(t *testing.T) {
	testenv.Root(t)
	top := tree(t, "etc/", "etc/top", "!var", "=opt", "opt/own")
	bottom := tree(t, "etc/", "etc/passwd", "etc/gone", "var/", "opt/", "opt/hidden", "bin", "lib/", "lib/so")
	for _, test := range []struct {
		name  string
		upper string
		want  []string
	}{
		{"nothing", tree(t), nil},
		{"all kinds", tree(t, "etc/", "etc/new", "etc/passwd", "!etc/gone"), []string{"C /etc", "D /etc/gone", "A /etc/new", "C /etc/passwd"}},
		{"of an upper layer", tree(t, "etc/", "etc/top"), []string{"C /etc", "C /etc/top"}},
		{"removed by the image", tree(t, "var/", "var/x"), []string{"A /var", "A /var/x"}},
		{"hidden by the image", tree(t, "opt/", "opt/hidden", "opt/own"), []string{"C /opt", "A /opt/hidden", "C /opt/own"}},
		{"made anew", tree(t, "=lib", "lib/so"), []string{"C /lib", "A /lib/so"}},
		{"a folder for a file", tree(t, "bin/", "bin/x"), []string{"C /bin", "A /bin/x"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := changes(t, test.upper, top, bottom); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// A link in either is compared as a link, and never followed.
func TestLinksAreNotFollowed(t *testing.T) {
	lower := tree(t, "@hosts", "dir/", "@dir/out")
	got := changes(t, tree(t, "hosts/", "hosts/passwd", "dir/", "dir/out/", "dir/out/passwd", "@new"), lower)
	want := []string{"C /dir", "C /dir/out", "A /dir/out/passwd", "C /hosts", "A /hosts/passwd", "A /new"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEnds(t *testing.T) {
	upper := tree(t, "a", "b")
	enough := errors.New("enough")
	calls := 0
	err := Changes(context.Background(), upper, nil, func(Change) error { calls++; return enough })
	if !errors.Is(err, enough) || calls != 1 {
		t.Errorf("%v after %d", err, calls)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Changes(ctx, upper, nil, func(Change) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := Changes(context.Background(), filepath.Join(upper, "none"), nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
