package cve

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// up leads from anywhere in a container, or on the host, to the root folder.
const up = "/../../../../../../../../../.."

// canary is a folder of the host that hostile links lead to, and stays as it is.
type canary struct {
	t   *testing.T
	dir string
}

func newCanary(t *testing.T) canary {
	t.Helper()
	c := canary{t, t.TempDir()}
	write(t, filepath.Join(c.dir, "secret"), "of the host")
	return c
}

// unchanged checks that nothing was added, written or mounted.
func (c canary) unchanged(what string) {
	c.t.Helper()
	entries, err := os.ReadDir(c.dir)
	if err != nil || len(entries) != 1 {
		c.t.Errorf("%s: the host's folder has %v, %v", what, entries, err)
	}
	if text, err := os.ReadFile(filepath.Join(c.dir, "secret")); err != nil || string(text) != "of the host" {
		c.t.Errorf("%s: the host's file has %q, %v", what, text, err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), c.dir) {
		c.t.Errorf("%s: something is mounted on the host's folder: %v", what, err)
	}
}

// CVE-2021-30465, CVE-2024-45310, CVE-2025-52565, CVE-2026-41579: while a container is made, another one swaps the place
// that something is to be mounted on for a link out of the container.
func TestCVE202130465ExchangedMountTargets(t *testing.T) {
	n := newNode(t)
	config := n.podConfig()
	pod := n.RunPod(config)
	shared, host := t.TempDir(), newCanary(t)
	name := filepath.Base(filepath.Dir(host.dir)) + "-" + filepath.Base(host.dir)
	n.Must("make folder", os.MkdirAll(filepath.Join(shared, "a"), 0o755))
	n.Must("link", os.Symlink(up, filepath.Join(shared, "b")))
	racer := probing(t, pods.Shell("racer", ""), "exchange")
	racer.Mounts = append(racer.Mounts, volume(shared, "/v"))
	exchanging := n.Started(pod, config, racer)
	source := t.TempDir()
	good := 0
	for i := range 25 {
		victim := pods.Shell("victim", "true")
		victim.Metadata.Attempt = uint32(i)
		victim.Mounts = []*runtimeapi.Mount{
			volume(shared, "/v"), volume(source, "/v/a/"+name+"/deep"), volume(source, "/v/a"+host.dir), volume("/dev/null", "/v/a/"+name+".file"),
		}
		if id, err := n.StartError(pod, config, victim); err == nil {
			good++
			n.Ended(id)
		}
	}
	t.Logf("%d of 25 started", good)
	n.goesOnRunning(exchanging)
	n.StopContainer(exchanging, 0) // before its folder is removed
	host.unchanged("exchanged")
	absent(t, "/"+name)
	absent(t, "/"+name+".file")
}

// CVE-2025-31133, CVE-2016-9962's kin: images whose folders and devices are links out of the container, for what is
// mounted, made or masked there.
func TestCVE202531133LinksInImages(t *testing.T) {
	n := newNode(t)
	host := newCanary(t)
	config := n.podConfig()
	pod := n.RunPod(config)
	folder, secret := up+host.dir, up+host.dir+"/secret"
	for i, headers := range [][]*tar.Header{
		{gone("dev"), link("dev", folder)}, {gone("etc"), link("etc", folder)}, {gone("sys"), link("sys", folder)},
		{link("dev/null", secret), link("dev/console", secret), link("dev/ptmx", secret), link("dev/shm", folder), link("dev/pts", folder)},
		{link("etc/hosts", secret), link("etc/hostname", secret), link("etc/resolv.conf", secret), link("etc/mtab", secret)},
		{link("data", folder), link("file", secret)},
	} {
		ref := shared.registry.image(t, fmt.Sprintf("links-%d", i), headers...)
		n.Pull(ref)
		for j, tty := range []bool{false, true} {
			ctr := pods.Shell(fmt.Sprintf("links-%d", i), "for f in /etc/hosts /etc/hostname /dev/null /dev/console /file /data/x; do echo written > $f; done; cat /data/secret /etc/hosts /file /etc/secret /dev/secret; true")
			ctr.Image.Image, ctr.Tty, ctr.Metadata.Attempt = ref, tty, uint32(j)
			ctr.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{
				MaskedPaths: []string{"/proc/kcore", "/proc/keys", "/data/secret"}, ReadonlyPaths: []string{"/proc/sys", "/data"},
			}
			ctr.Mounts = []*runtimeapi.Mount{volume(t.TempDir(), "/data/x")}
			id, err := n.StartError(pod, config, ctr)
			if err == nil {
				n.Ended(id)
				if said := n.logText(filepath.Join(config.LogDirectory, ctr.LogPath)); strings.Contains(said, "of the host") {
					t.Errorf("image %d shows the host's file", i)
				}
			}
			host.unchanged(fmt.Sprintf("image %d, terminal %v, started: %v", i, tty, err))
		}
	}
}

// CVE-2022-23648: volumes that an image declares, whose paths lead out of the container by themselves or by links in the
// image, so that what is copied into them are files of the host.
func TestCVE202223648VolumesOfImages(t *testing.T) {
	n := newNode(t)
	host := newCanary(t)
	folder := up + host.dir
	paths := []string{folder, "/data/../.." + folder, "relative" + folder, "/data", "/data/below", "/absolute", "/deep/link/x"}
	ref := shared.registry.imageWith(t, "volumes", func(c *ocispec.ImageConfig) {
		c.Volumes = map[string]struct{}{}
		for _, path := range paths {
			c.Volumes[path] = struct{}{}
		}
	}, link("data", folder), link("absolute", host.dir), &tar.Header{Typeflag: tar.TypeDir, Name: "deep"}, link("deep/link", filepath.Dir(folder)))
	n.Pull(ref)
	const look = `find / -path /proc -prune -o -name secret -exec cat {} +; cat /data/secret /absolute/secret; for d in / /data /absolute /deep/link/x; do echo written > $d/secret; done; true`
	ctr := pods.Shell("volumes", look)
	ctr.Image.Image = ref
	id, logs := n.running(ctr)
	n.Ended(id)
	said := n.logText(filepath.Join(logs, ctr.LogPath))
	host.unchanged("by kubelet")
	out := n.Nodectl("run", "--rm", ref, "sh", "-c", look)
	host.unchanged("by nodectl")
	t.Logf("kubelet's container says %.300q, nodectl's, with exit code %d, %.300q %.300q", said, out.Code, out.Stdout, out.Stderr)
	if strings.Contains(said+out.Stdout, "of the host") {
		t.Error("a volume shows the host's file")
	}
}

// CVE-2025-31133: a device for masking that is a link, in a volume mounted on /dev.
func TestCVE202531133MaskedPaths(t *testing.T) {
	n := newNode(t)
	host, dev := newCanary(t), t.TempDir()
	n.Must("link", os.Symlink(up+"/proc/sys/kernel/core_pattern", filepath.Join(dev, "null")))
	config := n.podConfig()
	ctr := pods.Shell("masked", "cat /proc/kcore | head -c 1; cat /proc/timer_list; exec sleep 1000")
	ctr.Mounts = []*runtimeapi.Mount{volume(dev, "/dev"), volume(host.dir, "/canary")}
	ctr.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{MaskedPaths: []string{"/proc/kcore", "/proc/timer_list"}, ReadonlyPaths: []string{"/proc/sys"}}
	before := hostSysctls(t)
	id, err := n.StartError(n.RunPod(config), config, ctr)
	if err != nil {
		t.Log(err)
	} else if answer, err := n.ExecSync(id, 10, "sh", "-c", "echo x > /proc/timer_list; head -c 1 /proc/timer_list; head -c 1 /proc/kcore"); err == nil && len(answer.Stdout) != 0 {
		t.Errorf("what is masked can be read: %q", answer.Stdout)
	}
	if after := hostSysctls(t); after != before {
		t.Errorf("the host has %q, had %q", after, before)
	}
}

// CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-52881: a /proc that is none, so that labels
// and sysctls are written to nowhere, or elsewhere.
func TestCVE201916884ProcThatIsNone(t *testing.T) {
	n := newNode(t)
	config := n.podConfig()
	pod := n.RunPod(config)
	fake, host := t.TempDir(), newCanary(t)
	for _, dir := range []string{"self/attr", "sys/kernel", "1"} {
		n.Must("make folder", os.MkdirAll(filepath.Join(fake, dir), 0o755))
	}
	write(t, filepath.Join(fake, "self/attr/exec"), "")
	control := pods.Shell("control", "exec sleep 1000")
	control.Mounts = []*runtimeapi.Mount{volume(fake, "/procfs")}
	n.Started(pod, config, control)
	for _, target := range []string{"/proc", "/proc/", "/x/../proc", "/proc/self", "/proc/self/attr", "/proc/self/attr/exec", "/proc/sys", "/proc/sys/kernel", "/proc/1/attr"} {
		ctr := pods.Shell("volume", "exec sleep 1000")
		ctr.Mounts = []*runtimeapi.Mount{volume(fake, target)}
		if _, err := n.StartError(pod, config, ctr); err == nil {
			t.Errorf("a folder is mounted on %s", target)
		}
		ctr.Metadata.Attempt++
	}
	for i, target := range []string{"/tmp", up + host.dir, "etc", ""} {
		headers := []*tar.Header{gone("proc")}
		if target != "" {
			headers = append(headers, link("proc", target))
		}
		ref := shared.registry.image(t, fmt.Sprintf("proc-%d", i), headers...)
		n.Pull(ref)
		ctr := pods.Shell(fmt.Sprintf("image-%d", i), "exec sleep 1000")
		ctr.Image.Image = ref
		if _, err := n.StartError(pod, config, ctr); (err == nil) != (target == "") {
			t.Errorf("an image whose /proc leads to %q: %v", target, err)
		}
	}
	host.unchanged("proc")
}

// CVE-2024-9676, CVE-2026-47262: what a running container does to its passwd file holds up nothing that is executed in it.
func TestCVE20249676PasswdOfARunningContainer(t *testing.T) {
	n := newNode(t)
	for name, plant := range map[string]string{
		"fifo": "mkfifo /etc/passwd", "zero": "ln -s /dev/zero /etc/passwd", "huge": "truncate -s 4G /etc/passwd", "link": "ln -s /proc/1/root/etc/shadow /etc/passwd",
	} {
		ctr := pods.Shell(name, "rm /etc/passwd && "+plant+" && echo planted; exec sleep 1000")
		ctr.Linux.Resources = &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 128 << 20, MemorySwapLimitInBytes: 128 << 20}
		id, logs := n.running(ctr)
		testenv.Eventually(t, eventLimit, "the file is planted", func() error {
			if n.logText(logs+"/"+ctr.LogPath) != "planted\n" {
				return fmt.Errorf("not yet")
			}
			return nil
		})
		if answer, err := n.ExecSync(id, 5, "echo", "here"); err != nil || string(answer.Stdout) != "here\n" {
			t.Errorf("%s: %v, %v", name, answer, err)
		}
	}
}

// An exec that never starts, here for a PATH that hangs, ends with its timeout and takes no other container's place.
func TestExecsThatNeverStart(t *testing.T) {
	n := newNode(t)
	hung := newHung(t)
	ctr := idle("hung")
	ctr.Mounts = []*runtimeapi.Mount{volume(hung.dir, "/hung")}
	ctr.Envs = []*runtimeapi.KeyValue{{Key: "PATH", Value: []byte("/bin:/usr/bin:/hung")}}
	id, _ := n.running(ctr)
	other, _ := n.running(idle("other"))
	var calls sync.WaitGroup
	for range 10 {
		calls.Go(func() {
			if _, err := n.ExecSync(id, 2, "no-such-program"); status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("exec that hangs: %v", err)
			}
		})
	}
	calls.Wait()
	if got := n.Exec(other, "echo", "here"); got != "here\n" {
		t.Errorf("%q", got)
	}
	hung.release()
}

// CVE-2022-4318, CVE-2026-15809: a home folder that brings a line of passwd with it.
func TestCVE20224318HomeWithNewline(t *testing.T) {
	n := newNode(t)
	for i, home := range []string{"/root\nevil:x:0:0::/:/bin/sh", "/root\revil:x:0:0::/:/bin/sh", "/root:/bin/sh\nevil::0:0::/:", `/root\nevil::0:0::/:`} {
		for _, user := range []int64{0, 4242} {
			ctr := pods.Shell(fmt.Sprintf("home-%d-%d", i, user), "wc -l < /etc/passwd; grep -c evil /etc/passwd; test \"$HOME\" != / && echo kept")
			ctr.Envs = []*runtimeapi.KeyValue{{Key: "HOME", Value: []byte(home)}}
			ctr.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{RunAsUser: &runtimeapi.Int64Value{Value: user}}
			id, logs := n.running(ctr)
			n.Ended(id)
			if got := n.logText(logs + "/" + ctr.LogPath); got != "3\n0\nkept\n" {
				t.Errorf("%q for user %d: %q", home, user, got)
			}
		}
	}
}
