package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
)

// TestCopy tries cp against a real agent.
func TestCopy(t *testing.T) {
	p := newPerson(t)
	for _, part := range []struct {
		name string
		test func(*testing.T)
	}{
		{"running", p.copyRunning}, {"stopped", p.copyStopped}, {"owners", p.copyOwners},
		{"links", p.copyLinks}, {"compressed", p.copyCompressed}, {"CVE-2026-41567", p.copyTrojans}, {"CVE-2026-42306", p.copyRacer},
	} {
		t.Run(part.name, func(t *testing.T) {
			defer p.removeAll(t)
			part.test(t)
		})
	}
}

// read is a file's content.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

// copyRunning sees what the container sees, volumes and tmpfs too.
func (p *person) copyRunning(t *testing.T) {
	p.t = t
	dir := t.TempDir()
	p.ctl("run", "-d", "--name", "c", "-v", "vol:/vol", "--tmpfs", "/scratch", "--read-only", "busybox", "sh", "-c",
		"echo v > /vol/f; echo s > /scratch/f; ln -s /vol /scratch/l; touch /scratch/ready; sleep 1000")
	p.eventuallyRuns("exec", "c", "test", "-e", "/scratch/ready")
	p.ctl("cp", "c:/vol/f", dir+"/v")
	p.ctl("cp", "c:/scratch/l/f", dir+"/s")
	if got := read(t, dir+"/v") + read(t, dir+"/s"); got != "v\nv\n" {
		t.Errorf("%q", got)
	}
	p.ctl("cp", dir+"/v", "c:/scratch/in")
	p.want("v", "exec", "c", "cat", "/scratch/in")
	if said := p.fails("cp", dir+"/v", "c:/etc/in"); said != "Error: container rootfs or mounted volume is marked read-only" {
		t.Error(said)
	}
	if said := p.fails("cp", "c:/proc/self/root/etc/passwd", dir); !strings.HasPrefix(said, "Error: ") {
		t.Error(said)
	}
	p.want("c", "rm", "-f", "c")
	p.want("vol", "volume", "rm", "vol")
}

// eventuallyRuns runs nodectl until it succeeds.
func (p *person) eventuallyRuns(args ...string) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for p.command(args...).Run() != nil {
		if time.Now().After(deadline) {
			p.t.Fatalf("nodectl %s does not succeed", strings.Join(args, " "))
		}
	}
}

// copyStopped works on containers that never ran and that ended, and what was
// copied is there when they are started.
func (p *person) copyStopped(t *testing.T) {
	p.t = t
	dir := t.TempDir()
	script := filepath.Join(dir, "run")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ncat /vol/in /etc/in\necho made > /made\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	p.ctl("create", "--name", "c", "-v", "vol:/vol", "busybox", "/script")
	p.ctl("cp", script, "c:/script")
	p.ctl("cp", "-q", file(t, "in\n"), "c:/vol/in")
	p.ctl("cp", filepath.Join(dir, "run"), "c:/etc/in")
	if out := p.ctl("start", "-a", "c"); !strings.HasPrefix(out, "in\n#!/bin/sh") {
		t.Errorf("%q", out)
	}
	p.ctl("cp", "c:/made", dir)
	p.ctl("cp", "c:/vol/in", dir+"/vol")
	if got := read(t, dir+"/made") + read(t, dir+"/vol"); got != "made\nin\n" {
		t.Errorf("%q", got)
	}
	p.ctl("cp", file(t, "#!/bin/sh\necho second\n"), "c:/other")
	p.ctl("start", "-a", "c")
	out := p.ctl("diff", "c")
	if !strings.Contains(out, "A /other") || !strings.Contains(out, "A /made") {
		t.Errorf("%q", out)
	}
	if said := p.fails("cp", "c:/nothing", dir); said != "Error: Could not find the file /nothing in container c" {
		t.Error(said)
	}
	p.want("c", "rm", "-v", "c")
	p.want("vol", "volume", "rm", "vol")
}

func (p *person) copyOwners(t *testing.T) {
	p.t = t
	dir := t.TempDir()
	mine := filepath.Join(dir, "mine")
	if err := os.WriteFile(mine, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(mine, 1234, 5678); err != nil {
		t.Fatal(err)
	}
	p.ctl("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	p.ctl("cp", mine, "c:/plain")
	p.ctl("cp", "-a", mine, "c:/kept")
	p.want("0:0:640\n1234:5678:640", "exec", "c", "stat", "-c", "%u:%g:%a", "/plain", "/kept")
	p.want("c", "rm", "-f", "c")
}

// copyTrojans: nothing of a container is executed by cp, diff and export, be
// it named as what other engines run to unpack or look users up.
func (p *person) copyTrojans(t *testing.T) {
	p.t = t
	mark := filepath.Join(t.TempDir(), "mark")
	trojan := file(t, "#!/bin/sh\ntouch "+mark+" /mark\nexit 1\n")
	if err := os.Chmod(trojan, 0o755); err != nil {
		t.Fatal(err)
	}
	p.ctl("run", "-d", "--name", "c", "busybox", "sleep", "1000")
	for _, name := range []string{
		"/bin/tar", "/usr/bin/xz", "/usr/bin/gzip", "/usr/bin/unpigz", "/usr/bin/zstd", "/sbin/tar", "/lib/libnss_files.so.2",
		"/usr/lib/x86_64-linux-gnu/libnss_files.so.2", "/etc/nsswitch.conf",
	} {
		p.ctl("exec", "c", "mkdir", "-p", filepath.Dir(name))
		p.ctl("cp", "-q", trojan, "c:"+name)
	}
	compressed := filepath.Join(t.TempDir(), "x.tar")
	if out, err := exec.Command("tar", "cf", compressed, "-C", filepath.Dir(trojan), "f").CombinedOutput(); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	for _, state := range []string{"running", "stopped"} {
		p.fed(read(t, compressed), "cp", "-", "c:/tmp")
		p.ctl("cp", "-q", "c:/etc", t.TempDir())
		p.ctl("diff", "c")
		p.ctl("export", "-o", filepath.Join(t.TempDir(), "all.tar"), "c")
		if state == "running" {
			if out := p.ctl("exec", "c", "ls", "/"); strings.Contains(out, "mark") {
				t.Error("a trojan ran in the container")
			}
			p.want("c", "stop", "-t", "0", "c")
		}
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("a trojan ran")
	}
	if said := p.fails("cp", "c:/mark", t.TempDir()); !strings.Contains(said, "Could not find") {
		t.Error("a trojan ran in the container")
	}
	p.want("c", "rm", "c")
}

// copyRacer: a container that swaps a folder for a link out of its root while
// files are copied gains nothing of the host's.
func (p *person) copyRacer(t *testing.T) {
	p.t = t
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "secret"), []byte("the host's\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.ctl("run", "-d", "--name", "racer", "busybox", "sh", "-c",
		"mkdir /a; echo mine > /a/secret; ln -s "+host+" /b; while :; do mv /a /t; mv /b /a; mv /t /b; mv /a /t; mv /b /a; mv /t /b; done")
	mine := file(t, "copied\n")
	for range 15 {
		out := filepath.Join(t.TempDir(), "out")
		_ = p.command("cp", "racer:/a/secret", out).Run()
		if text, err := os.ReadFile(out); err == nil && string(text) != "mine\n" {
			t.Errorf("the host's file came out: %q", text)
		}
		_ = p.command("cp", mine, "racer:/a/made").Run()
		if _, err := os.Lstat(filepath.Join(host, "made")); err == nil {
			t.Fatal("a file was made on the host")
		}
	}
	p.want("racer", "rm", "-f", "racer")
}

// copyLinks: a local link is where it leads, be there something or not; and a
// container that does not run has the files that tell it of its network.
func (p *person) copyLinks(t *testing.T) {
	p.t = t
	dir := t.TempDir()
	p.ctl("create", "--name", "c", "-h", "named", "busybox", "true")
	for link, target := range map[string]string{"to-file": "file", "to-nothing": "new", "to-folder": "sub", "chain": "to-file"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, one := range []struct{ to, made string }{
		{"to-nothing", "new"}, {"to-file", "file"}, {"chain", "file"}, {"to-folder", "sub/hostname"}, {"to-folder/", "sub/hostname"},
	} {
		if err := os.RemoveAll(filepath.Join(dir, one.made)); err != nil {
			t.Fatal(err)
		}
		p.ctl("cp", "c:/etc/hostname", dir+"/"+one.to)
		if got := read(t, filepath.Join(dir, one.made)); got != "named\n" {
			t.Errorf("%s: %q", one.to, got)
		}
		if info, err := os.Lstat(filepath.Join(dir, strings.TrimSuffix(one.to, "/"))); err != nil || info.Mode()&os.ModeSymlink == 0 {
			t.Errorf("%s is a link no more: %v", one.to, err)
		}
	}
	p.want("c", "rm", "c")
}

// copyCompressed: a tar may come compressed, by what docker knows. That of bzip2 and
// xz is tried in package command, since no writer of them is at hand.
func (p *person) copyCompressed(t *testing.T) {
	p.t = t
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("content\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tarball, err := exec.Command("tar", "-C", dir, "-c", "f").Output()
	if err != nil {
		t.Fatal(err)
	}
	var gzipped bytes.Buffer
	z := gzip.NewWriter(&gzipped)
	if _, err := z.Write(tarball); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	p.ctl("create", "--name", "c", "busybox", "sleep", "1000")
	p.fed(gzipped.String(), "cp", "-", "c:/etc")
	p.ctl("cp", "c:/etc/f", dir+"/back")
	if got := read(t, dir+"/back"); got != "content\n" {
		t.Errorf("%q", got)
	}
	cut := p.command("cp", "-", "c:/etc")
	cut.Stdin = bytes.NewReader(gzipped.Bytes()[:gzipped.Len()-12])
	if out, err := cut.CombinedOutput(); err == nil || !strings.HasPrefix(string(out), "Error: decompress gzip: ") {
		t.Errorf("%q %v", out, err)
	}
	p.want("c", "rm", "c")
}
