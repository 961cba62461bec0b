package account

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
)

const passwd = `root:x:0:0:root:/root:/bin/sh
# comment:x:5:5
1000:x:0:0:evil:/:/bin/sh
+nis:x:0:0::/:
www-data:x:33:33:www:/var/www:/usr/sbin/nologin
alice:x:1001:1001::/home/alice
neg:x:-1:0::/
big:x:4294967296:0::/
huge:x:4294967295:0::/
newline:x:7:7::home:
`

const group = `root:x:0:
adm:x:4:alice,www-data
www-data:x:33:
2000:x:0:
staff:x:50:alice
big:x:4294967296:alice
`

func image(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for path, content := range map[string]string{"etc/passwd": passwd, "etc/group": group} {
		if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func ptr(n int64) *int64 { return &n }

// Among them CVE-2024-40635 and CVE-2026-46680: IDs that wrap to root, or are looked up as names.
func TestCVE202646680Resolve(t *testing.T) {
	root := image(t)
	for _, c := range []struct {
		q        Query
		uid, gid uint32
		groups   []uint32
		home     string
		fails    bool
	}{
		{q: Query{}, home: "/root"},
		{q: Query{Name: "alice"}, uid: 1001, gid: 1001, groups: []uint32{4, 50}, home: "/home/alice"},
		{q: Query{Name: "alice", Strict: true}, uid: 1001, gid: 1001, home: "/home/alice"},
		{q: Query{UID: ptr(1001)}, uid: 1001, gid: 1001, groups: []uint32{4, 50}, home: "/home/alice"},
		{q: Query{UID: ptr(1001), GID: ptr(9)}, uid: 1001, gid: 9, groups: []uint32{4, 50}, home: "/home/alice"},
		{q: Query{UID: ptr(4000)}, uid: 4000},
		{q: Query{Name: "1003:1004"}, uid: 1003, gid: 1004},
		{q: Query{Name: "www-data:adm"}, uid: 33, gid: 4, groups: []uint32{4}, home: "/var/www"},
		{q: Query{Name: "alice", GID: ptr(12)}, uid: 1001, gid: 12, groups: []uint32{4, 50}, home: "/home/alice"},
		// Names that are numbers are IDs, whatever the files say.
		{q: Query{Name: "1000"}, uid: 1000},
		{q: Query{Name: "33:2000"}, uid: 33, gid: 2000, groups: []uint32{4}, home: "/var/www"},
		{q: Query{Name: "2147483647"}, uid: 2147483647},
		{q: Query{Name: "2147483648"}, fails: true},
		{q: Query{Name: "4294967295"}, fails: true},
		{q: Query{Name: "4294967296"}, fails: true},
		{q: Query{Name: "99999999999999999999"}, fails: true},
		{q: Query{Name: "1000:99999999999"}, fails: true},
		{q: Query{Name: "-1"}, fails: true},
		{q: Query{Name: "+0"}, home: "/root"},
		{q: Query{Name: "0x0"}, fails: true},
		{q: Query{Name: "nobody"}, fails: true},
		{q: Query{Name: "big"}, fails: true},
		{q: Query{Name: "huge"}, fails: true},
		{q: Query{Name: "neg"}, fails: true},
		{q: Query{Name: "alice:big"}, fails: true},
		{q: Query{Name: "alice:"}, fails: true},
		{q: Query{Name: ":staff"}, fails: true},
		{q: Query{UID: ptr(-1)}, fails: true},
		{q: Query{UID: ptr(1 << 31)}, fails: true},
		{q: Query{GID: ptr(5)}, fails: true},
		{q: Query{UID: ptr(5), Name: "alice"}, fails: true},
	} {
		u, err := Resolve(root, c.q)
		if (err != nil) != c.fails {
			t.Errorf("%+v: error %v", c.q, err)
			continue
		}
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%+v: kind of %v", c.q, err)
			}
			continue
		}
		if u.UID != c.uid || u.GID != c.gid || !slices.Equal(u.AdditionalGids, c.groups) || u.Home != c.home {
			t.Errorf("%+v: got %+v", c.q, u)
		}
	}
}

func TestNoFiles(t *testing.T) {
	root := t.TempDir()
	if u, err := Resolve(root, Query{Name: "12:13"}); err != nil || u.UID != 12 || u.GID != 13 {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := Resolve(root, Query{Name: "alice"}); err == nil {
		t.Error("a user out of nowhere")
	}
}

// CVE-2024-9676, CVE-2026-47262, CVE-2025-4437: what is not a regular file inside the image is never opened, and no file
// is read beyond its bound.
func TestCVE20249676HostileFiles(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"fifo":     func(path string) error { return syscall.Mkfifo(path, 0o644) },
		"zero":     func(path string) error { return os.Symlink("/dev/zero", path) },
		"outside":  func(path string) error { return os.Symlink("../../../../../../../../etc/passwd", path) },
		"absolute": func(path string) error { return os.Symlink("/etc/shadow", path) },
		"dir":      func(path string) error { return os.Mkdir(path, 0o755) },
		"sparse": func(path string) error {
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				return err
			}
			return os.Truncate(path, 4<<30)
		},
		"link outside": func(path string) error { return os.Symlink("/proc/self/root/etc/passwd", path) },
	} {
		root := t.TempDir()
		if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := plant(filepath.Join(root, "etc/passwd")); err != nil {
			t.Fatal(err)
		}
		if u, err := Resolve(root, Query{Name: "root"}); err == nil {
			t.Errorf("%s: got %+v", name, u)
		}
	}
}

func FuzzPasswd(f *testing.F) {
	f.Add([]byte(passwd))
	f.Add([]byte("a:b:1:2\n:::\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		findUser(data, func(e *entry) bool {
			if e.name == "" || strings.ContainsAny(e.name+e.home, "\n\r\x00:") {
				t.Errorf("entry %+v", e)
			}
			if e.uid > 1<<31-1 || e.gid > 1<<31-1 {
				t.Errorf("ID out of range: %+v", e)
			}
			return false
		})
	})
}

func FuzzGroup(f *testing.F) {
	f.Add([]byte(group))
	f.Fuzz(func(t *testing.T, data []byte) {
		eachGroup(data, func(name string, gid uint32, _ string) bool {
			if name == "" || gid > 1<<31-1 {
				t.Errorf("group %q %d", name, gid)
			}
			return true
		})
	})
}
