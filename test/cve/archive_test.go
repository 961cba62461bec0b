package cve

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// export is what nodectl export gives.
func (n *node) export(container string) []byte {
	n.t.Helper()
	out := n.Nodectl("export", container)
	if out.Code != 0 {
		n.t.Fatalf("export: exit code %d: %s", out.Code, out.Stderr)
	}
	return []byte(out.Stdout)
}

// member is a file of a tar; nil when there is none.
func member(t *testing.T, data []byte, name string) (*tar.Header, []byte) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == name {
			content, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return h, content
		}
	}
}

// CVE-2026-41567, and CVE-2019-14271 before it: who packs a container's files runs a program, or loads a library, that
// lies among them. Nothing from inside a container is executed by export and commit.
func TestCVE202641567TrojanPrograms(t *testing.T) {
	n := newNode(t)
	config := n.podConfig()
	trojans := `printf '#!/bin/sh\necho ran >> /pwned\n' > /trojan; chmod 755 /trojan; mkdir -p /usr/bin /usr/lib /lib64
for name in tar gzip gunzip pigz unpigz xz zstd bzip2; do for dir in /usr/bin /usr/local/bin /sbin; do mkdir -p $dir; cp /trojan $dir/$name; done; done
for lib in libnss_files.so.2 libnss_dns.so.2 libc.so.6 ld-linux-x86-64.so.2; do for dir in /lib64 /usr/lib; do [ -e $dir/$lib ] || cp /trojan $dir/$lib; done; done
cp /trojan /etc/nsswitch.conf; rm /bin/tar /bin/gzip; cp /trojan /bin/tar; cp /trojan /bin/gzip; touch /ready; exec sleep 1000`
	id := n.Started(n.RunPod(config), config, pods.Shell("trojans", trojans))
	n.Exec(id, "/bin/busybox", "sh", "-c", "while [ ! -e /ready ]; do :; done")
	data := n.export(id)
	if h, _ := member(t, data, "usr/bin/xz"); h == nil {
		t.Error("the export has no trojan")
	}
	out := n.Nodectl("commit", id, "trojans:1")
	if out.Code != 0 {
		t.Fatalf("commit: %s", out.Stderr)
	}
	n.StopContainer(id, 0)
	if h, _ := member(t, n.export(id), "pwned"); h != nil {
		t.Error("a program of the container was executed")
	}
	absent(t, "/pwned")
	if out := n.Nodectl("rmi", "trojans:1"); out.Code != 0 {
		t.Error(out.Stderr)
	}
}

// CVE-2026-41568, CVE-2026-42306, and CVE-2018-15664 before them: what is read is exchanged for a link meanwhile, and
// the host's file is read in its place. Export and commit never follow a link.
func TestCVE202641568Exchanged(t *testing.T) {
	n := newNode(t)
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, "of the host")
	config := n.podConfig()
	racer := `mkdir /in; while :; do
mkdir /in/a; echo own > /in/a/secret; mv -T /in/a /in/x 2>/dev/null; rm -rf /in/x
ln -s ` + filepath.Dir(secret) + ` /in/x; rm /in/x; ln -s ` + secret + ` /in/x; rm /in/x; mkfifo /in/x; rm /in/x; done`
	id := n.Started(n.RunPod(config), config, pods.Shell("racer", racer))
	until := time.Now().Add(3 * time.Second)
	kinds := map[byte]bool{}
	for rounds := 0; rounds < 3 || time.Now().Before(until); rounds++ {
		data := n.export(id)
		if bytes.Contains(data, []byte("of the host")) {
			t.Fatal("export gives the host's file")
		}
		if h, _ := member(t, data, "in/x"); h != nil {
			kinds[h.Typeflag] = true
		}
	}
	n.goesOnRunning(id)
	if t.Logf("it was exported as %q", slices.Sorted(maps.Keys(kinds))); len(kinds) == 0 {
		t.Error("what is exchanged was never exported")
	}
	out := n.Nodectl("commit", "--no-pause", id, "raced:1")
	if out.Code != 0 {
		t.Fatalf("commit: %s", out.Stderr)
	}
	if out := n.Nodectl("run", "--rm", "--entrypoint", "sh", "raced:1", "-c", "find /in -type f -exec cat {} +"); strings.Contains(out.Stdout, "of the host") {
		t.Error("commit took the host's file")
	}
	if out := n.Nodectl("rmi", "raced:1"); out.Code != 0 {
		t.Error(out.Stderr)
	}
	if content, err := os.ReadFile(secret); err != nil || string(content) != "of the host" {
		t.Errorf("%q, %v", content, err)
	}
}

// What a container in a user namespace owns leaves the node with the owners that the container sees, whether it runs
// or not: an archive with the host's would be of use on this node alone.
func TestExportTranslatesOwners(t *testing.T) {
	n := newNode(t)
	config := mapped(n.podConfig())
	id := n.Started(n.RunPod(config), config, pods.Shell("mapped", "echo x > /own; chown 5:6 /own; touch /ready; exec sleep 1000"))
	n.Exec(id, "sh", "-c", "while [ ! -e /ready ]; do :; done")
	for _, state := range []string{"running", "stopped"} {
		if state == "stopped" {
			n.StopContainer(id, 0)
		}
		data := n.export(id)
		if h, content := member(t, data, "own"); h == nil || h.Uid != 5 || h.Gid != 6 || string(content) != "x\n" {
			t.Errorf("%s: own file: %+v", state, h)
		}
		if h, _ := member(t, data, "etc/passwd"); h == nil || h.Uid != 0 || h.Gid != 0 {
			t.Errorf("%s: image's file: %+v", state, h)
		}
	}
	if out := n.Nodectl("commit", id, "mapped:1"); out.Code != 0 {
		t.Fatal(out.Stderr)
	}
	if out := n.Nodectl("run", "--rm", "--entrypoint", "stat", "mapped:1", "-c", "%u:%g", "/own"); strings.TrimSpace(out.Stdout) != "5:6" {
		t.Errorf("committed: %q %s", out.Stdout, out.Stderr)
	}
	if out := n.Nodectl("rmi", "mapped:1"); out.Code != 0 {
		t.Error(out.Stderr)
	}
}
