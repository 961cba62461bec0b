package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// TestVolumes tries volumes against a real agent.
func TestVolumes(t *testing.T) {
	p := newPerson(t)
	for _, part := range []struct {
		name string
		test func(*testing.T)
	}{
		{"named", p.namedVolumes}, {"copy-up", p.copyUp}, {"anonymous", p.anonymousVolumes}, {"driver options", p.volumeOptions},
		{"mounts", p.mountTypes}, {"from others", p.volumesFrom},
	} {
		t.Run(part.name, func(t *testing.T) {
			defer p.removeAll(t)
			part.test(t)
			if left := p.ctl("volume", "ls", "-q"); left != "" && !t.Failed() {
				t.Errorf("volumes left: %s", left)
			}
		})
	}
}

// fails runs nodectl, which must fail, and returns what it complained of.
func (p *person) fails(args ...string) string {
	p.t.Helper()
	cmd := p.command(args...)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Run(); err == nil {
		p.t.Fatalf("nodectl %s: succeeded", strings.Join(args, " "))
	}
	what, _, _ := strings.Cut(strings.TrimSpace(said.String()), "\n\nRun 'nodectl") // where to read more
	return what
}

// namedVolumes outlive containers and the agent's death.
func (p *person) namedVolumes(t *testing.T) {
	p.t = t
	p.want("data", "volume", "create", "--label", "kind=test", "data")
	p.ctl("run", "--rm", "-v", "data:/data", "busybox", "sh", "-c", "echo kept > /data/file")
	p.Kill9()
	p.Start()
	p.want("kept", "run", "--name", "reader", "--mount", "src=data,dst=/data,readonly", "busybox", "cat", "/data/file")
	p.want("data", "inspect", "-f", `{{range .Mounts}}{{.Name}}{{end}}`, "reader")
	if said := p.fails("volume", "rm", "data"); !strings.HasPrefix(said, "Error: remove data: volume is in use - [") {
		t.Error(said)
	}
	if said := p.fails("run", "--rm", "-v", "data:/data:ro", "busybox", "touch", "/data/x"); !strings.Contains(said, "Read-only file system") {
		t.Error(said)
	}
	p.want("reader", "ps", "-a", "--format", "{{.Names}}", "-f", "volume=data")
	p.want("reader", "rm", "reader")
	path := p.ctl("volume", "inspect", "-f", "{{.Mountpoint}}", "data")
	if text, err := os.ReadFile(filepath.Join(path, "file")); err != nil || string(text) != "kept\n" {
		t.Errorf("%q %v", text, err)
	}
	p.want("data", "volume", "ls", "-q", "-f", "label=kind=test", "-f", "dangling=true")
	p.want("data", "volume", "rm", "data")
	if said := p.fails("volume", "inspect", "data"); said != "Error: get data: no such volume" {
		t.Error(said)
	}
}

// copyUp: a new volume gets what the image has there; one with something in
// it does not.
func (p *person) copyUp(t *testing.T) {
	p.t = t
	p.want("root:x:0:0:root:/root:/bin/sh", "run", "--rm", "-v", "etc:/etc", "busybox", "grep", "^root:", "/etc/passwd")
	p.ctl("run", "--rm", "-v", "etc:/etc", "busybox", "rm", "/etc/passwd")
	p.want("gone", "run", "--rm", "-v", "etc:/etc", "busybox", "sh", "-c", "test -e /etc/passwd || echo gone")
	p.want("empty", "run", "--rm", "-v", "bare:/etc:nocopy", "busybox", "sh", "-c", "test -e /etc/passwd || echo empty")
	p.want("bare\netc", "volume", "rm", "bare", "etc")
}

// anonymousVolumes go with --rm and rm -v, and not without.
func (p *person) anonymousVolumes(t *testing.T) {
	p.t = t
	p.ctl("run", "--rm", "-v", "/data", "busybox", "touch", "/data/x")
	p.want("", "volume", "ls", "-q")
	p.ctl("create", "--name", "keeps", "-v", "/data", "busybox", "true")
	name := p.ctl("inspect", "-f", "{{range .Mounts}}{{.Name}}{{end}}", "keeps")
	p.want("keeps", "rm", "keeps")
	p.want(name, "volume", "ls", "-q", "-f", "dangling=true")
	if out := p.ctl("volume", "prune", "-f"); !strings.Contains(out, "Deleted Volumes:\n"+name) {
		t.Errorf("%q", out)
	}
	p.ctl("create", "--name", "takes", "-v", "/data", "-v", "named:/more", "busybox", "true")
	p.want("takes", "rm", "-v", "takes")
	p.want("named", "volume", "ls", "-q")
	p.want("named", "volume", "rm", "named")
}

func (p *person) volumeOptions(t *testing.T) {
	p.t = t
	p.ctl("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=2m,uid=7", "fast")
	p.want("2048 7", "run", "--rm", "-v", "fast:/fast", "busybox", "sh", "-c", "echo $(df -k /fast | tail -n 1 | awk '{print $2}') $(stat -c %u /fast)")
	source := t.TempDir()
	p.ctl("volume", "create", "-o", "type=none", "-o", "device="+source, "-o", "o=bind", "bound")
	p.ctl("run", "--rm", "-v", "bound:/b", "busybox", "touch", "/b/made")
	if _, err := os.Stat(filepath.Join(source, "made")); err != nil {
		t.Error(err)
	}
	p.want("fast\nbound", "volume", "rm", "fast", "bound")
	if said := p.fails("volume", "create", "-o", "type=fuse.sshfs", "-o", "device=x", "far"); !strings.Contains(said, "cannot be mounted here") {
		t.Error(said)
	}
	if said := p.fails("volume", "create", "../x"); !strings.Contains(said, "includes invalid characters for a local volume name") {
		t.Error(said)
	}
}

func (p *person) mountTypes(t *testing.T) {
	p.t = t
	p.want("passwd", "run", "--rm", "--mount", "type=image,source=busybox,target=/box,image-subpath=etc", "busybox", "sh", "-c", "ls /box | grep -x passwd")
	source := t.TempDir()
	testenv.Run(t, "mount", "-t", "tmpfs", "x", source)
	defer testenv.Run(t, "umount", source)
	if err := os.MkdirAll(filepath.Join(source, "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, "mount", "-t", "tmpfs", "y", filepath.Join(source, "below"))
	defer testenv.Run(t, "umount", filepath.Join(source, "below"))
	if err := os.WriteFile(filepath.Join(source, "below", "deep"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.want("deep", "run", "--rm", "-v", source+":/s", "busybox", "ls", "/s/below")
	p.want("", "run", "--rm", "--mount", "type=bind,src="+source+",dst=/s,bind-recursive=disabled", "busybox", "ls", "/s/below")
	p.ctl("run", "--rm", "-v", "parts:/v", "busybox", "sh", "-c", "mkdir /v/a; echo part > /v/a/file")
	p.want("part", "run", "--rm", "--mount", "src=parts,dst=/v,volume-subpath=a", "busybox", "cat", "/v/file")
	if said := p.fails("run", "--rm", "--mount", "src=parts,dst=/v,volume-subpath=../..", "busybox", "true"); !strings.Contains(said, "invalid subpath") {
		t.Error(said)
	}
	p.want("part 0", "run", "--rm", "--userns", "auto", "--mount", "src=parts,dst=/v,volume-subpath=a", "busybox", "sh", "-c", "echo $(cat /v/file) $(stat -c %u /v/file)")
	// Who has the whole volume puts a link to the host's files in the part's place.
	p.ctl("create", "--name", "part", "--mount", "src=parts,dst=/v,volume-subpath=a", "busybox", "ls", "/v")
	p.ctl("run", "--rm", "-v", "parts:/v", "busybox", "sh", "-c", "mv /v/a /v/b; ln -s /etc /v/a")
	if said := p.fails("start", "-a", "part"); !strings.Contains(said, "cannot access path a in volume parts") {
		t.Error(said)
	}
	if said := p.fails("cp", "part:/v/passwd", "-"); !strings.Contains(said, "Could not find the file") {
		t.Error(said)
	}
	p.ctl("run", "--rm", "-v", "parts:/v", "busybox", "sh", "-c", "rm /v/a; mv /v/b /v/a")
	p.want("file", "start", "-a", "part")
	p.want("file", "start", "-a", "part")
	p.want("part", "rm", "part")
	p.want("part", "run", "--rm", "-v", "parts:/v", "busybox", "cat", "/v/a/file")
	p.want("parts", "volume", "rm", "parts")
}

func (p *person) volumesFrom(t *testing.T) {
	p.t = t
	p.ctl("create", "--name", "source", "-v", "shared:/shared", "-v", "/own", "busybox", "true")
	p.ctl("run", "--rm", "--volumes-from", "source", "busybox", "touch", "/shared/x", "/own/y")
	p.want("/own/y /shared/x", "run", "--rm", "--volumes-from", "source:ro", "busybox", "sh", "-c", "echo $(ls -d /shared/* /own/*)")
	if said := p.fails("run", "--rm", "--volumes-from", "source:ro", "busybox", "touch", "/own/z"); !strings.Contains(said, "Read-only") {
		t.Error(said)
	}
	p.want("source", "rm", "-v", "source")
	p.want("shared", "volume", "rm", "shared")
}
