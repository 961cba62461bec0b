package diagnosis

import (
	"regexp"
	"strings"
)

// failure says in plain words what an error means.
type failure struct {
	match *regexp.Regexp
	// cause and hints may refer to what matched ($1), and to the image
	// (IMAGE). The cause goes on where "It could not be made: " ends.
	cause string
	hints []string
}

func when(pattern, cause string, hints ...string) failure {
	return failure{match: regexp.MustCompile(pattern), cause: cause, hints: hints}
}

// Which go first matters: the first that matches is taken.
var (
	// anyFailures are those that everything may end in.
	anyFailures = []failure{
		when(`(?i)no space left on device`, "the disk is full",
			"See what takes the room with: nodectl system df; give some back with: nodectl system prune"),
		when(`(?i)too many open files`, "the agent has as many files open as it may",
			"See the limit with: nodectl doctor; raise it (systemd: LimitNOFILE=1048576) and restart nodeagent."),
		when(`gave up after (\S+):|context deadline exceeded`, "it took longer than the agent waits",
			"See what it waits for, if it is tried again, with: nodectl ops"),
		when(`(?i)supervisor.*(unavailable|not answer|connection refused|closed)`, "the supervisor, which starts and stops containers, did not answer",
			"See whether it does now with: nodectl doctor"),
	}
	makeFailures = []failure{
		when(`image (\S+): not found`, "its image $1 is not on this node",
			"Pull it with: nodectl pull $1 (kubelet does that itself, unless imagePullPolicy is Never)"),
		when(`no user ("[^"]*") in the image`, "the user $1, as which it is to run, is not in the image's /etc/passwd",
			"See who is with: nodectl run --rm --entrypoint cat IMAGE /etc/passwd; or give the user as a number."),
		when(`no group ("[^"]*") in the image`, "the group $1, as which it is to run, is not in the image's /etc/group",
			"See which are with: nodectl run --rm --entrypoint cat IMAGE /etc/group; or give the group as a number."),
		when(`mounts\[\d+\]\.host_path: (\S+): .*no such file or directory`, "$1, which is to be mounted into it, is not on this node",
			"Look with: ls -ld $1; a folder is made with: mkdir -p $1 (Kubernetes makes it for a hostPath of type DirectoryOrCreate)"),
		when(`mounts\[\d+\]\.host_path: (\S+): `, "$1, which is to be mounted into it, cannot be used", "Look with: ls -ld $1"),
		when(`host_path: \S+ (\S+): no such file or directory`, "the device $1 is not on this node",
			"Look with: ls -l $1; its driver's module may not be loaded (lsmod), or the device not be plugged in."),
		when(`("[^"]+") is in no CDI file`, "the CDI device $1 is not known on this node",
			"See which files tell of devices with: ls -l /etc/cdi /var/run/cdi; the vendor's toolkit or device plugin writes them."),
		when(`seccomp\.localhost_ref: .*? (/\S+): no such file`, "its seccomp profile $1 is not on this node",
			"Look with: ls -l $1; put the profile there (kubelet's are below /var/lib/kubelet/seccomp)."),
		when(`AppArmor is off`, "it asks for an AppArmor profile, and AppArmor is off on this node",
			"Look with: cat /sys/module/apparmor/parameters/enabled; take the profile out, or run it on a node with AppArmor."),
		when(`(?i)apparmor`, "its AppArmor profile cannot be used", "See which are loaded with: aa-status"),
		when(`there is no capability ("[^"]+")`, "there is no capability $1 on this node", "See which there are with: man 7 capabilities"),
		when(`container ([0-9a-f]{12})[0-9a-f]* has this name and attempt`, "a container of this name and attempt is there already",
			"Look at it with: nodectl why $1"),
		when(`linux\.resources\.\S+: `, "one of its limits cannot be set on this node", "See which controllers there are with: nodectl doctor"),
	}
	startFailures = []failure{
		when(`exec: "([^"]+)": executable file not found`, "its program $1 is in no folder of PATH in the image", imageHint),
		when(`exec: "([^"]+)": .*no such file or directory`, "its program $1 is not in the image", imageHint),
		when(`exec: "([^"]+)": is a directory`, "$1, which it is to run, is a folder", imageHint),
		when(`exec: "([^"]+)": permission denied`, "its program $1 may not be run: it lacks the x bit, or the user it runs as may not reach it",
			"Give it the x bit (chmod +x, in the image or the volume it is in), or run it as another user."),
		when(`(?i)exec format error`, wrongKind, wrongKindHint),
		when(`unable to set memory limit to (\d+) |memory limit too low`, "its memory limit is too small to start anything in it",
			"Raise it (nodectl: -m; Kubernetes: resources.limits.memory)."),
		when(`error mounting "([^"]+)" to rootfs at "([^"]+)": .*not a directory`, "$1 cannot be mounted on $2: one of them is a folder and the other is not",
			"Look with: ls -ld $1; in the image with: nodectl run --rm --entrypoint ls IMAGE -ld $2"),
		when(`error mounting "([^"]+)" to rootfs at "([^"]+)"`, "$1 cannot be mounted on $2", "Look with: ls -ld $1"),
		when(`mkdir (\S+): not a directory`, "its working directory, or a folder to mount on, cannot be made: part of $1 is a file",
			"Give another one (nodectl: -w, -v; Kubernetes: workingDir, mountPath)."),
		when(`chdir to cwd \("([^"]*)"\)`, "its working directory $1 cannot be entered",
			"Give another one (nodectl: -w; Kubernetes: workingDir), or let its user in."),
		when(`cpuset\.(cpus|mems): `, "it is to run on processors or memory nodes that this machine does not have, or that its pod may not use",
			"See which may be used with: cat /sys/fs/cgroup/cpuset/cpuset.cpus or /sys/fs/cgroup/cpuset.cpus.effective"),
		when(`(?i)cgroup`, "the kernel refused its cgroup, or one of its limits", "See whether controllers are missing with: nodectl doctor"),
		when(`(?i)hook`, "a program that is to run beside it (a hook, of a CDI device) failed", "See the devices' files with: ls -l /etc/cdi /var/run/cdi"),
		when(`(?i)apparmor`, "its AppArmor profile cannot be used", "See which are loaded with: aa-status"),
	}
	podFailures = []failure{
		when(`plugin (\S+) is not in ([^:]+): `, "the CNI plugin $1, which the network's configuration names, is not installed in $2",
			"Look with: ls -l $2; whoever installs the network puts it there. Which configuration is used says: nodectl doctor"),
		when(`no usable network configuration in (\S+): `, "none of the CNI configurations in $1 can be used",
			"Mend or remove what is wrong there; which file it is says: nodectl doctor"),
		when(`(\S+) may be being written: `, "the CNI configuration $1 is not whole",
			"If nobody writes it, mend or remove it; what is wrong with it says: nodectl doctor"),
		when(`(?i)no (IP )?address(es)? (available|left)|resource exhausted`, "no address is left for it in the network",
			"See who has one with: nodectl pods; remove pods, or make the range in the CNI configuration wider (its file is named by: nodectl doctor)."),
		when(`plugin (?:\S*/)?(\S+) cannot be killed`, "the CNI plugin $1 hangs in the kernel, and cannot be killed",
			"See what it waits for with: ps -eo pid,stat,wchan:32,args | grep ' D'; a disk, a server or a lock of the kernel's does not answer."),
		when(`plugin (?:\S*/)?(\S+) was killed`, "the CNI plugin $1 did not end in time, and was killed",
			"It waits for something: look at its own daemon, if it has one, and at its log."),
		when(`(\S+ port \d+) is published by pod ([0-9a-f]{12})`, "$1 of this node is another pod's", "Look at that one with: nodectl why $2"),
		when(`plugin (?:type="\S+" failed \(\w+\): plugin )?(?:\S*/)?([^\s"]+): `, "the CNI plugin $1 failed",
			"What it says stands behind its name; a plugin with a daemon, such as Calico's or Cilium's, says more in that one's log."),
		when(`(?i)sysctl ([^\s=]+)=`, "the kernel refuses its sysctl $1", "See whether there is such a one with: sysctl $1"),
		when(`(?i)network`, "it could not be given its network", "See which configuration is used, and what is wrong with it, with: nodectl doctor"),
		when(`(?i)cgroup`, "its cgroup could not be made or removed", "See whether the cgroup driver is kubelet's, and what is left over, with: nodectl doctor"),
		when(`survives SIGKILL|still there`, "a process in it cannot be killed: it waits in the kernel, mostly for a disk or a network file system",
			"See what it waits for with: nodectl ops; with: ps -eo pid,stat,wchan:32,args | grep ' D'"),
	}
	pullFailures = []failure{
		when(`authorization failed|unauthorized|401 Unauthorized|403 Forbidden|access denied|denied:`, "its registry does not let this node have it (it may also not exist there)",
			"Try with: nodectl login REGISTRY and: nodectl pull IMAGE; in Kubernetes see to imagePullSecrets."),
		when(`404 Not Found|manifest unknown|name unknown`, "its registry has no such image or tag",
			"Look for a slip in the name. See which registries and mirrors are asked with: nodectl registry explain IMAGE"),
		when(`no image for this platform|no match for platform`, "there is none for this kind of machine",
			"Build or name one for this platform; which there are says: nodectl registry explain IMAGE"),
		when(`x509|tls: |certificate|HTTP response to HTTPS client`, "its registry's certificate, or its use of TLS, is not what this node trusts",
			"See what is tried and which file says so with: nodectl registry explain IMAGE; give the registry's CA, or skip_verify, in its hosts.toml"),
		when(`no such host|server misbehaving|lookup \S+`, "the name of its registry is not found by this node's DNS",
			"Try with: getent hosts REGISTRY; look at /etc/resolv.conf"),
		when(`connection refused|connection reset|no route to host|network is unreachable|i/o timeout|deadline exceeded|\bEOF\b`, "its registry cannot be reached, or does not answer",
			"See which address is tried, and by which proxy, with: nodectl registry explain IMAGE"),
		when(`429 Too Many`, "its registry has had too many requests from here", "Log in, since that often raises the limit (nodectl login), wait, or configure a mirror."),
		when(` 5\d\d [A-Z]`, "its registry is broken right now: it answers with an error of its own", "Try again later, or configure a mirror; see what is asked with: nodectl registry explain IMAGE"),
		when(`web page`, "something else than a registry answers: a proxy's or a network's login page, perhaps", "Open the address in a browser; see what is asked with: nodectl registry explain IMAGE"),
		when(`data loss|has digest`, "what came is not what its digest says: it was damaged on the way, or in the registry or a mirror",
			"Try again; if that stays so, push the image again, or leave the mirror out. See what is asked with: nodectl registry explain IMAGE"),
		when(`invalid reference format`, "its name is not one that an image can have", "Look for capitals, blanks and signs in it."),
	}
)

const (
	imageHint     = "See what the image is made to run with: nodectl image inspect -f '{{json .Config}}' IMAGE; look for the program with: nodectl run -it --rm --entrypoint sh IMAGE"
	wrongKind     = "its program was made for another kind of machine, or is a script without a first line such as #!/bin/sh"
	wrongKindHint = "See what the image was made for with: nodectl image inspect -f '{{.Os}}/{{.Architecture}}' IMAGE"
)

// explained is an error in plain words, with the error itself behind them, and
// what can be done; an error that is not known stands for itself.
func explained(text, image string, tables ...[]failure) (cause string, hints []string) {
	short := trimmed(text)
	for _, table := range append(tables, anyFailures) {
		for _, f := range table {
			found := f.match.FindStringSubmatchIndex(text)
			if found == nil {
				continue
			}
			fill := func(template string) string {
				out := string(f.match.ExpandString(nil, template, text, found))
				if image != "" {
					registry, _, _ := strings.Cut(image, "/")
					out = strings.ReplaceAll(strings.ReplaceAll(out, "IMAGE", image), "REGISTRY", registry)
				}
				return out
			}
			for _, hint := range f.hints {
				hints = append(hints, fill(hint))
			}
			return fill(f.cause) + ". The error: " + short, hints
		}
	}
	return short, nil
}

// noise are parts of errors that say where in the agent something went wrong,
// or repeat an ID that everybody knows by then.
var noise = regexp.MustCompile(`^(?:specification|mounts|user|image|namespaces|network|process|supervisor|rootfs|snapshot|files): ` +
	`|wire pod [0-9a-f]{64}: |edit the specification of container [0-9a-f]{64}: |pin namespaces in \S+: |unable to start container process: ` +
	`|plugins: plugin type="[^"]*" failed \(\w+\): |^rpc error: code = \w+ desc = |^[A-Z][A-Za-z]+: |^pull \S+: |^run pod \S+: `)

// trimmed takes the noise off an error.
func trimmed(text string) string {
	for {
		shorter := noise.ReplaceAllString(text, "")
		if shorter == text || shorter == "" {
			return text
		}
		text = shorter
	}
}
