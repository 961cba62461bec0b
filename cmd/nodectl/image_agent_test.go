package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// TestImagesMove moves images by all ways there are, with a real agent and
// real registries.
func TestImagesMove(t *testing.T) {
	p := newPerson(t)
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	for _, part := range []struct {
		name string
		test func(*testing.T)
	}{
		{"commit", p.commits}, {"archives", p.archives}, {"export and import", p.exports}, {"registry", p.pushes}, {"private registry", p.private},
		{"terminal", p.pushesOnTerminal}, {"names", p.imageNames},
	} {
		t.Run(part.name, part.test)
	}
	p.t = t
	p.ctl("image", "prune", "-a", "-f")
	if left := p.ctl("images", "-aq"); left != "" {
		t.Errorf("left: %s", left)
	}
}

// refused runs nodectl, which must fail with some words.
func (p *person) refused(words string, args ...string) {
	p.t.Helper()
	if said := p.fails(args...); !strings.Contains(said, words) {
		p.t.Errorf("nodectl %s: %q, want %q", strings.Join(args, " "), said, words)
	}
}

// commits: an image of a container has what it changed, and no volume's files.
func (p *person) commits(t *testing.T) {
	p.t = t
	p.ctl("run", "--name", "made", "-e", "OWN=1", "-v", "/vol", "busybox", "sh", "-c",
		"echo one > /new; ln /new /twin; rm -r /root; mkdir -m 700 /d; chown 7:8 /d; touch /vol/not; mknod /d/null c 1 3; echo x >> /etc/group")
	id := p.ctl("commit", "-a", "hxl", "-m", "test commit an image", "-c", `CMD ["cat", "/new"]`, "made", "web:1")
	if !strings.HasPrefix(id, "sha256:") || len(id) != 71 {
		t.Errorf("commit says %q", id)
	}
	p.want("one", "run", "--rm", "web:1")
	p.want("2 7:8:700 1 x\nx", "run", "--rm", "web:1", "sh", "-c",
		"echo $(stat -c %h /twin) $(stat -c %u:%g:%a /d) $OWN $(tail -n 1 /etc/group); ls -d /root /vol/not 2>/dev/null; test -c /d/null && echo x")
	p.want("hxl test commit an image", "image", "inspect", "-f", "{{.Author}} {{.Comment}}", "web:1")
	if out := p.ctl("history", "--format", "{{.Comment}}", "web:1"); !strings.HasPrefix(out, "test commit an image") {
		t.Errorf("history: %q", out)
	}
	// A running one is held still, or not, and goes on.
	p.ctl("run", "-d", "--name", "runs", "busybox", "sh", "-c", "echo two > /new; sleep 1000")
	p.ctl("commit", "-p=false", "runs", "web:2")
	first := p.ctl("image", "inspect", "-f", "{{.Id}}", "web:2")
	p.ctl("commit", "runs", "web:2")
	p.want("running", "inspect", "-f", "{{.State.Status}}", "runs")
	p.want("two", "run", "--rm", "web:2", "cat", "/new")
	// The tag has moved.
	p.want("<none> <none> "+first, "image", "ls", "-f", "dangling=true", "--no-trunc", "--format", "{{.Repository}} {{.Tag}} {{.ID}}")
	if out := p.fed("y\n", "image", "prune"); !strings.Contains(out, "deleted: "+first) {
		t.Errorf("prune: %q", out)
	}
	p.refused("run is not a valid change command", "commit", "-c", "RUN x", "runs")
	p.refused("No such container: nosuch", "commit", "nosuch")
	p.want("made\nruns", "rm", "-f", "-v", "made", "runs")
}

// archives: what is saved comes back, plain and compressed, several in one.
func (p *person) archives(t *testing.T) {
	p.t = t
	dir := t.TempDir()
	file := filepath.Join(dir, "image.tar")
	before := p.ctl("images", "--no-trunc", "-q", "web:1")
	p.ctl("save", "-o", file, "web:1", "busybox")
	p.want("Untagged: web:1\nDeleted: "+before, "rmi", "web:1")
	p.want("Loaded image: web:1\nLoaded image: busybox:latest", "load", "-i", file)
	p.want(before, "images", "--no-trunc", "-q", "web:1")
	p.want("one", "run", "--rm", "web:1")

	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(data)
	z.Close()
	p.ctl("rmi", "web:1")
	if out := p.fed(zipped.String(), "load", "-q"); !strings.Contains(out, "Loaded image: web:1") {
		t.Errorf("load: %q", out)
	}
	p.want("one", "run", "--rm", "web:1")
	// Nothing is left of what is refused.
	p.refused("neither index.json nor manifest.json is in it", "load", "-i", "/dev/null")
	if err := os.WriteFile(file, data[:len(data)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	p.ctl("rmi", "web:1")
	p.refused("Error: load: ", "load", "-i", file)
	p.refused("No such image: web:1", "image", "inspect", "web:1")
	p.refused("No such image: nosuch:latest", "save", "-o", filepath.Join(dir, "none.tar"), "nosuch")
	if _, err := os.Stat(filepath.Join(dir, "none.tar")); err == nil {
		t.Error("a file is left of a save that failed")
	}
}

// exports: a container's files, running or not, make an image of one layer.
func (p *person) exports(t *testing.T) {
	p.t = t
	p.ctl("run", "-d", "--name", "exported", "--tmpfs", "/scratch", "busybox", "sh", "-c", "echo three > /new; rm /etc/group; touch /scratch/not; sleep 1000")
	p.ctl("exec", "exported", "sh", "-c", "while [ ! -e /scratch/not ]; do :; done")
	running := p.ctl("export", "exported")
	p.ctl("stop", "-t", "0", "exported")
	stopped := p.ctl("export", "exported")
	for name, data := range map[string]string{"running": running, "stopped": stopped} {
		id := p.fed(data, "import", "-m", "from "+name, "-c", `CMD ["sh", "-c", "cat /new; ls /scratch /etc/group"]`, "-", "user/"+name+":tag")
		out, _ := p.command("run", "--rm", "user/"+name+":tag").Output()
		if !strings.HasPrefix(id, "sha256:") || string(out) != "three\n/scratch:\n" && string(out) != "three\n" {
			t.Errorf("%s: %q, %q", name, id, out)
		}
		p.want("from "+name, "image", "inspect", "-f", "{{.Comment}}", id)
		p.want("1", "image", "inspect", "-f", "{{len .RootFS.Layers}}", id)
	}
	p.want("exported", "start", "exported") // what was read is as it was
	p.want("exported", "rm", "-f", "exported")
	p.ctl("rmi", "user/running:tag", "user/stopped:tag")
}

// pushes: an image goes to a registry and comes back.
func (p *person) pushes(t *testing.T) {
	p.t = t
	reg := testenv.EmptyRegistry(t)
	name := reg.Host + "/ubuntu"
	p.ctl("tag", "busybox", name+":15.10")
	out := p.ctl("push", name+":15.10")
	if !strings.HasPrefix(out, "The push refers to repository ["+name+"]\n") || !strings.Contains(out, ": Pushed\n") || !strings.Contains(out, "\n15.10: digest: sha256:") {
		t.Errorf("push: %q", out)
	}
	if out := p.ctl("push", name+":15.10"); !strings.Contains(out, ": Layer already exists\n") {
		t.Errorf("again: %q", out)
	}
	p.ctl("tag", "busybox", reg.Host+"/other:1")
	if out := p.ctl("push", reg.Host+"/other:1"); !strings.Contains(out, ": Mounted from ubuntu\n") {
		t.Errorf("to another repository: %q", out)
	}
	p.ctl("tag", "busybox", name+":16.04")
	if out := p.ctl("push", "-a", name); strings.Count(out, ": digest: ") != 2 {
		t.Errorf("all tags: %q", out)
	}
	p.ctl("rmi", name+":15.10", name+":16.04", reg.Host+"/other:1")
	if out := p.ctl("pull", "-a", name); !strings.Contains(out, "15.10: Pulling from ubuntu") || !strings.Contains(out, "16.04: Pulling from ubuntu") || !strings.HasSuffix(out, "\n"+name) {
		t.Errorf("pull -a: %q", out)
	}
	p.want("back", "run", "--rm", name+":16.04", "echo", "back")
	if out := p.ctl("search", "--format", "{{.Name}}", reg.Host+"/ubu"); out != name {
		t.Errorf("search: %q", out)
	}
	p.want("busybox", "search", "--filter", "is-official=true", "--limit", "1", "--format", "{{.Name}}", "busybox")
	p.ctl("rmi", name+":15.10", name+":16.04")
	p.refused("An image does not exist locally with the tag: "+name, "push", name+":15.10")
}

// private: only who has logged in may push and pull.
func (p *person) private(t *testing.T) {
	p.t = t
	reg := testenv.PrivateRegistry(t)
	name := reg.Host + "/secret:1"
	p.ctl("tag", "busybox", name)
	p.refused("Error: ", "push", name)
	p.refused("401 Unauthorized", "login", "-u", testenv.PrivateUser, "-p", "wrong", reg.Host)
	if out := p.fed(testenv.PrivatePassword+"\n", "login", "-u", testenv.PrivateUser, "--password-stdin", reg.Host); out != "Login Succeeded" {
		t.Errorf("login: %q", out)
	}
	p.ctl("push", "-q", name)
	p.ctl("rmi", name)
	p.want(name, "pull", "-q", name)
	p.want(reg.Host+"/secret", "search", "--format", "{{.Name}}", reg.Host+"/secret")
	p.want("in", "run", "--rm", name, "echo", "in")
	p.want("Removing login credentials for "+reg.Host, "logout", reg.Host)
	p.ctl("rmi", name)
	p.refused("Error: ", "pull", name)
}

// pushesOnTerminal: what is drawn comes from a real push.
func (p *person) pushesOnTerminal(t *testing.T) {
	p.t = t
	reg := testenv.EmptyRegistry(t)
	p.ctl("tag", "busybox", reg.Host+"/drawn:1")
	screen := p.onTerminal(p.command("push", reg.Host+"/drawn:1"))
	screen.shows("The push refers to repository [" + reg.Host + "/drawn]")
	screen.shows("\x1b[1A\x1b[2K\r")
	screen.shows(": Pushed")
	screen.shows("1: digest: sha256:")
	screen.ends(0)
	p.ctl("rmi", reg.Host+"/drawn:1")
}

// imageNames: what docker refuses is refused in its words.
func (p *person) imageNames(t *testing.T) {
	p.t = t
	id := p.ctl("run", "-d", "--name", "user", "busybox", "sleep", "1000")
	short := strings.TrimPrefix(p.ctl("images", "--no-trunc", "-q", "busybox"), "sha256:")[:12]
	p.refused(fmt.Sprintf("conflict: unable to remove repository reference \"busybox\" (must force) - container %s is using its referenced image %s", id[:12], short), "rmi", "busybox")
	p.refused(fmt.Sprintf("conflict: unable to delete %s (cannot be forced) - image is being used by running container %s", short, id[:12]), "rmi", "-f", short)
	p.ctl("tag", "busybox", "other/name:1")
	p.refused("image is referenced in multiple repositories", "rmi", short)
	p.want("Untagged: other/name:1", "rmi", "other/name:1")
	p.refused("invalid reference format", "tag", "busybox", "Not A Name")
	// By force: without a name while a container runs, gone when none does.
	if out := p.ctl("rmi", "-f", "busybox"); !strings.HasPrefix(out, "Untagged: busybox:latest") || strings.Contains(out, "Deleted") {
		t.Errorf("rmi -f: %q", out)
	}
	p.want("<none> "+short, "images", "--format", "{{.Tag}} {{.ID}}", "-f", "dangling=true")
	p.want("user", "stop", "-t", "0", "user")
	if out := p.ctl("rmi", "-f", short); !strings.Contains(out, "Deleted: sha256:"+short) {
		t.Errorf("rmi -f by ID: %q", out)
	}
	p.want("user", "start", "user") // its files are there
	p.want("user", "rm", "-f", "user")
	p.ctl("pull", "-q", "busybox")
}
