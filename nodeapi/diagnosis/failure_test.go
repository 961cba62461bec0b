package diagnosis

import (
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/recorder"
)

// podID and its kind stand where IDs stand in errors.
var podID = strings.Repeat("ab", 32)

// The errors are as the agent words them.
func TestFailuresAreExplained(t *testing.T) {
	for _, test := range []struct {
		error string
		table []failure
		want  string
		hint  string
	}{
		{`image: image r.io/a:1: not found`, makeFailures, "its image r.io/a:1 is not on this node. The error: image r.io/a:1: not found", "nodectl pull r.io/a:1"},
		{`user: user: no user "x" in the image's /etc/passwd`, makeFailures, `the user "x", as which it is to run, is not in the image's /etc/passwd. The error: no user`, "--entrypoint cat IMG /etc/passwd"},
		{`user: user: no group "y" in the image's /etc/group`, makeFailures, `the group "y"`, "/etc/group"},
		{`mounts: mounts[0].host_path: /no/src: lstat /no: no such file or directory`, makeFailures, "/no/src, which is to be mounted into it, is not on this node", "mkdir -p /no/src"},
		{`specification: devices[0].host_path: lstat /dev/x: no such file or directory`, makeFailures, "the device /dev/x is not on this node", "ls -l /dev/x"},
		{`specification: edit the specification of container ` + podID + `: CDI_devices[0].name: "v.com/gpu=0" is in no CDI file`, makeFailures,
			`the CDI device "v.com/gpu=0" is not known on this node. The error: CDI_devices`, "/etc/cdi"},
		{`specification: linux.security_context.seccomp.localhost_ref: open /p.json: no such file or directory`, makeFailures, "its seccomp profile /p.json is not on this node", "ls -l /p.json"},
		{`specification: linux.security_context.apparmor: AppArmor is off on this host`, makeFailures, "AppArmor is off", "enabled"},
		{`specification: linux.security_context.capabilities.add_capabilities[0]: there is no capability "X"`, makeFailures, `there is no capability "X"`, "man 7"},
		{`container ` + podID + ` has this name and attempt, and is running: already exists`, makeFailures, "is there already", "nodectl why abababababab"},
		{`specification: linux.resources.unified: this host has no cgroup v2 controllers`, makeFailures, "one of its limits cannot be set", "doctor"},
		{`snapshot: mkdir /x: no space left on device`, makeFailures, "the disk is full", "nodectl system df"},
		{`exec: "prog": executable file not found in $PATH`, startFailures, "its program prog is in no folder of PATH in the image", "nodectl image inspect -f '{{json .Config}}' IMG"},
		{`exec: "/no/prog": stat /no/prog: no such file or directory`, startFailures, "its program /no/prog is not in the image", "--entrypoint sh IMG"},
		{`exec: "/etc": is a directory`, startFailures, "/etc, which it is to run, is a folder", ""},
		{`exec: "/p": permission denied`, startFailures, "its program /p may not be run", "chmod +x"},
		{`error setting cgroup config for procHooks process: unable to set memory limit to 16384 (current usage: 2482176, peak usage: 2551808)`, startFailures, "its memory limit is too small", "resources.limits.memory"},
		{`error mounting "/f" to rootfs at "/etc": mount src=/f, dst=/etc, dstFd=/proc/thread-self/fd/15, flags=MS_BIND|MS_REC: not a directory`, startFailures, "/f cannot be mounted on /etc: one of them is a folder", "ls -ld /f"},
		{`mkdir /etc/passwd: not a directory`, startFailures, "part of /etc/passwd is a file", "-w"},
		{`unable to start container process: unable to apply cgroup configuration: failed to write "900": write /sys/fs/cgroup/cpuset/x/cpuset.cpus: numerical result out of range`, startFailures,
			"it is to run on processors or memory nodes that this machine does not have, or that its pod may not use. The error: unable to apply", "cpuset.cpus"},
		{`network: wire pod ` + podID + `: network net: plugin x is not in /opt/cni/bin: unavailable (plugin "x" is not built in: not implemented)`, podFailures,
			"the CNI plugin x, which the network's configuration names, is not installed in /opt/cni/bin. The error: network net", "ls -l /opt/cni/bin"},
		{`wire pod: plugins: plugin type="x" failed (add): plugin /opt/cni/bin/x cannot be killed: context deadline exceeded`, podFailures, "the CNI plugin x hangs in the kernel", "wchan"},
		{`wire pod: /etc/cni/net.d/10-x.conflist may be being written: unexpected end of JSON input`, podFailures, "the CNI configuration /etc/cni/net.d/10-x.conflist is not whole", "doctor"},
		{`network: wire pod ` + podID + `: no usable network configuration in /etc/cni/net.d: /etc/cni/net.d/10-x.conflist: unexpected end of JSON input`, podFailures, "none of the CNI configurations in /etc/cni/net.d can be used", "doctor"},
		{`network: wire pod ` + podID + `: plugins: plugin type="bridge" failed (add): bridge: host-local: take an address for network small: no IP addresses available in range set: 10.99.0.1-10.99.0.2: resource exhausted`, podFailures,
			"no address is left for it in the network. The error: bridge: host-local", "nodectl pods"},
		{`network: wire pod ` + podID + `: plugins: plugin type="calico" failed (add): plugin /opt/cni/bin/calico was killed: context deadline exceeded`, podFailures, "the CNI plugin calico did not end in time", "daemon"},
		{`network: wire pod ` + podID + `: plugins: plugin type="x" failed (add): plugin /opt/cni/bin/x: no route: cable cut`, podFailures, "the CNI plugin x failed. The error: plugin /opt/cni/bin/x: no route", "log"},
		{`network: wire pod ` + podID + `: plugins: plugin type="portmap" failed (add): portmap: tcp port 80 is published by pod ` + podID + `: already exists`, podFailures, "tcp port 80 of this node is another pod's", "nodectl why abababababab"},
		{`namespaces: pin namespaces in /run/x/ns: sysctl net.no.such=1: no such file or directory`, podFailures, "the kernel refuses its sysctl net.no.such. The error: sysctl net.no.such=1", "sysctl net.no.such"},
		{`init: stop pod init ` + podID + `: it survives SIGKILL: context deadline exceeded`, podFailures, "a process in it cannot be killed", "nodectl ops"},
		{`pull r.io/a:1: HEAD https://r.io/v2/a/manifests/1: 404 Not Found: not found`, pullFailures, "its registry has no such image or tag. The error: HEAD https", "nodectl registry explain IMG"},
		{`pull 127.0.0.1:40312/a:1: HEAD http://127.0.0.1:40312/v2/a/manifests/1: authorization failed: no basic auth credentials: unauthorized`, pullFailures, "does not let this node have it", "nodectl login"},
		{`rpc error: code = Unknown desc = RegistryUnavailable: pull r.io/a:1: HEAD https://r.io/v2/: dial tcp 1.2.3.4:443: connect: connection refused`, pullFailures, "its registry cannot be reached, or does not answer. The error: HEAD", "explain"},
		{`pull r.io/a:1: HEAD https://r.io/v2/: dial tcp: lookup r.io on 10.0.0.1:53: no such host`, pullFailures, "is not found by this node's DNS", "resolv.conf"},
		{`pull r.io/a:1: HEAD https://r.io/v2/: tls: failed to verify certificate: x509: certificate signed by unknown authority`, pullFailures, "its registry's certificate", "hosts.toml"},
		{`pull r.io/a:1: HEAD https://r.io/v2/: http: server gave HTTP response to HTTPS client`, pullFailures, "its use of TLS", "hosts.toml"},
		{`pull r.io/a:1: HEAD https://r.io/v2/: 429 Too Many Requests`, pullFailures, "too many requests", "login"},
		{`pull r.io/a:1: HEAD https://r.io/v2/: 500 Internal Server Error`, pullFailures, "broken right now", "later"},
		{`pull r.io/a:1: fetch blob sha256:40` + podID + `: the content has digest sha256:` + podID + `: data loss`, pullFailures, "what came is not what its digest says", "again"},
		{`pull r.io/a:1: there is no image for this platform in the index: it has linux/s390x: not found`, pullFailures, "there is none for this kind of machine. The error: there is no image", "platform"},
		{`pull: parse reference "UPPER/x:!!": invalid reference format`, pullFailures, "its name is not one", "capitals"},
		{`something nobody thought of`, podFailures, "something nobody thought of", ""},
	} {
		cause, hints := explained(test.error, "IMG", test.table)
		if !strings.Contains(cause, test.want) || !strings.Contains(strings.Join(hints, " "), test.hint) {
			t.Errorf("%s: %q, %q", test.error, cause, hints)
		}
	}
}

// A pod whose image cannot be had says so, until it is had.
func TestPodLacksImage(t *testing.T) {
	pull := func(failure string) recorder.Entry {
		return recorder.Entry{Kind: recorder.KindCall, What: "PullImage", Text: "r.io/a:1", Error: failure, At: before(0)}
	}
	p := Subject{Now: now, State: Ready, Created: now, Entries: []recorder.Entry{pull("pull r.io/a:1: HEAD https://r.io/v2/a/manifests/1: 404 Not Found: not found")}}
	if s := Pod(p, nil); !strings.HasPrefix(s.Cause, "image r.io/a:1: It could not be pulled, tried last just now: its registry has no such image or tag.") {
		t.Errorf("%+v", s)
	}
	p.Entries = append(p.Entries, pull(""))
	if s := Pod(p, nil); strings.Contains(s.Cause, "pulled") {
		t.Errorf("%+v", s)
	}
}

// What ended well is no trouble, and of many troubles the first is told.
func TestPodSumsUp(t *testing.T) {
	well := Story{Cause: wellKnown}
	bad := func(name string) Part {
		return Part{Name: name, State: Exited, Exit: 1, Story: Story{Cause: "It fell.", Hints: []string{"Lift it."}}}
	}
	for _, test := range []struct {
		parts []Part
		want  string
	}{
		{[]Part{{Name: "init", State: Exited, Story: Story{Cause: "done"}}, {Name: "main", State: Running, Story: well}}, "All is well: 1 container running, and 1 ended with exit code 0."},
		{[]Part{{Name: "job", State: Exited}}, "It is done: 1 container ended with exit code 0."},
		{[]Part{{Name: "a", State: Running, Story: well}, {Name: "b", State: Created, Story: Story{Cause: unstarted}}}, "Not all is started yet: of its 2 containers 1 run."},
		{[]Part{bad("a"), {Name: "b", State: Running, Story: well}}, "a: It fell. Lift it."},
		{[]Part{bad("a"), bad("b"), bad("c")}, "There is trouble with 3 of its parts: a, b, c. The first of them: a: It fell. Lift it."},
		{[]Part{{Name: "a", State: Running, Story: Story{Cause: "It is slow."}}}, "a: It is slow."},
	} {
		s := Pod(Subject{Now: now, State: Ready}, test.parts)
		if got := s.Cause + " " + strings.Join(s.Hints, " "); strings.TrimSpace(got) != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

// What runs, and is no use to anybody.
func TestRunsInVain(t *testing.T) {
	lost := Subject{Now: now, State: Running, Started: before(time.Hour), FullDisk: "/var/log/pods/x"}
	again := exited(9, "Error", "")
	again.Restarting, again.Names.Container = true, "web"
	for _, test := range []struct {
		c    Subject
		want string
	}{
		{lost, "What it writes to its log is lost: the disk of /var/log/pods/x is full. See how full with: df -h /var/log/pods/x"},
		{again, "Its restart policy is to start it again."},
		{again, "nodectl update --restart no web"},
	} {
		s := Container(test.c)
		if text := s.State + " " + s.Cause + " " + strings.Join(s.Hints, " "); !strings.Contains(text, test.want) {
			t.Errorf("no %q in %q", test.want, text)
		}
	}
}

// Hints are taken from what it wrote, and causes from what is known.
func TestEnds(t *testing.T) {
	wrote := func(c Subject, lines ...string) Subject {
		c.Output = lines
		return c
	}
	refused := exited(1, "Error", "")
	refused.Entries[0].Exit.Usage.PIDsLimit, refused.Entries[0].Exit.Usage.PIDsRefused = 5, 2
	child := exited(3, "OOMKilled", "")
	elsewhere := exited(137, "OOMKilled", "SIGKILL")
	elsewhere.Entries[0].Exit.Usage.MemoryPeak = 1 << 20
	unknown := exited(137, "Error", "SIGKILL")
	unknown.Entries[0].Exit.Usage = recorder.Usage{}
	for name, test := range map[string]struct {
		c    Subject
		want []string
	}{
		"interpreter":   {wrote(exited(255, "Error", ""), "exec /x/run.sh: no such file or directory"), []string{"Its program was not run: /x/run.sh is there, but the interpreter"}},
		"other machine": {wrote(exited(255, "Error", ""), "exec /x: exec format error"), []string{"Its program was not run: /x was made for another kind of machine"}},
		"own 255":       {wrote(exited(255, "Error", ""), "I give up"), []string{`what it wrote last should say what: "I give up".`}},
		"read-only":     {wrote(exited(1, "Error", ""), "can't create /var/x: Read-only file system"), []string{"is read-only. Give it a volume"}},
		"seccomp":       {exited(159, "Error", "SIGSYS"), []string{"a system call that its seccomp profile forbids", "type=1326"}},
		"terminated":    {exited(143, "Error", ""), []string{"SIGTERM made end. The agent did not send that"}},
		"no processes":  {refused, []string{"It may have 5 processes and threads, and was refused more 2 times.", "podPidsLimit"}},
		"child":         {child, []string{"killed a process in it for want of memory: it used all of the memory it may have (64MiB). Its first process then ended by itself, with exit code 3."}},
		"elsewhere":     {elsewhere, []string{"it used 1MiB of the 64MiB it may have at most, so that of its pod, or of the machine, ran out"}},
		"no counters":   {unknown, []string{"or the kernel because the machine or the pod was out of memory", "dmesg"}},
		"probe": {exited(143, "Error", "SIGTERM", recorder.Entry{Kind: recorder.KindCall, What: "ExecSync", Text: "check", Error: "exit code 1", By: "kubelet (PID 4)", At: before(70e9)}, signal("SIGTERM", "kubelet (PID 4)", 61e9)),
			[]string{`Before that a command that kubelet (PID 4) ran in it failed ("check": exit code 1): its liveness or startup probe, it seems.`}},
		"liveness": {exited(143, "Error", "SIGTERM", signal("SIGTERM", "kubelet (PID 4)", 61e9)), []string{"kubectl describe pod"}},
	} {
		s := Container(test.c)
		text := s.State + " " + s.Cause + " " + strings.Join(s.Hints, " ")
		for _, want := range test.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in %q", name, want, text)
			}
		}
	}
}

func FuzzExplained(f *testing.F) {
	f.Add(`image: image r.io/a:1: not found`, "a/b")
	f.Fuzz(func(t *testing.T, text, image string) {
		for _, table := range [][]failure{makeFailures, startFailures, podFailures, pullFailures} {
			if cause, _ := explained(text, image, table); text != "" && cause == "" {
				t.Errorf("%q gives nothing", text)
			}
		}
	})
}
