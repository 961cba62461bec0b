package doctor

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"time"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

// What is little of a disk, in percent of blocks or inodes that are free.
const (
	littleFree = 15
	hardlyFree = 5
)

// disk looks at the room in the agent's folders, at /var/log, where kubelet has
// containers write, and at other disks that logs are on.
func (h Host) disk(_ context.Context, r *report) {
	seen := map[unix.Fsid]bool{}
	for _, dir := range []string{h.AgentRoot, h.AgentState, h.path("/var/log")} {
		if f := h.room(r, dir, seen); f != nil {
			r.ok("%s has %s free", dir, units.BytesSize(float64(uint64(f.Bsize)*f.Bavail)))
		}
	}
	if h.Logs == nil {
		return
	}
	for _, dir := range h.Logs() {
		h.room(r, dir, seen)
	}
}

// room tells of a disk that is nearly full; it gives the figures of one that is
// not, and nil of one that was seen before.
func (h Host) room(r *report, dir string, seen map[unix.Fsid]bool) *unix.Statfs_t {
	var fs unix.Statfs_t
	if dir == "" || h.Statfs(dir, &fs) != nil || seen[fs.Fsid] && fs.Fsid != (unix.Fsid{}) {
		return nil
	}
	seen[fs.Fsid] = true
	remedy, what := "du -x "+dir+" | sort -n | tail, and remove what is not needed", "what containers write to logs there is lost when it is full"
	switch dir {
	case h.AgentRoot:
		remedy, what = "nodectl system df; nodectl system prune", "kubelet evicts pods when images take too much"
	case h.AgentState:
		what = "no pod can be started when it is full"
	}
	if level := littleness(fs.Ffree, fs.Files); fs.Files > 0 && level != OK {
		r.add(level, remedy, "%s has only %d of %d inodes free: files cannot be made when they run out", dir, fs.Ffree, fs.Files)
	}
	level := littleness(fs.Bavail, fs.Blocks)
	if level == OK {
		return &fs
	}
	r.add(level, remedy, "%s has only %s free of %s: %s", dir,
		units.BytesSize(float64(uint64(fs.Bsize)*fs.Bavail)), units.BytesSize(float64(uint64(fs.Bsize)*fs.Blocks)), what)
	return nil
}

func littleness(free, all uint64) Level {
	switch {
	case all == 0 || free*100 >= all*littleFree:
		return OK
	case free*100 >= all*hardlyFree:
		return Warning
	}
	return Problem
}

// stateFolder looks that what a reboot voids is where a reboot voids it.
func (h Host) stateFolder(_ context.Context, r *report) {
	var fs unix.Statfs_t
	if h.AgentState == "" || h.Statfs(h.AgentState, &fs) != nil {
		return
	}
	if fs.Type != unix.TMPFS_MAGIC {
		r.add(Note, `set state = "/run/nodeagent" in /etc/nodeagent/config.toml, and restart nodeagent`,
			"%s is not on tmpfs: each pod writes to the disk more than it needs to", h.AgentState)
		return
	}
	r.ok("%s is on tmpfs", h.AgentState)
}

// What is little for a node with many pods.
const (
	fewFiles   = 65536
	fewThreads = 32768
	fewWatches = 256
)

// limits looks at what the kernel lets all processes have together, and the
// agent alone.
func (h Host) limits(_ context.Context, r *report) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil && files.Max < fewFiles {
		r.add(Warning, "ulimit -n 1048576, before the agent is started (systemd: LimitNOFILE=1048576)", "the agent may have %d files open: each container needs some", files.Max)
	}
	for _, limit := range []struct {
		file, name, value string
		least             int64
		what              string
	}{
		{"/proc/sys/kernel/pid_max", "kernel.pid_max", "4194304", fewThreads, "processes and threads on this machine"},
		{"/proc/sys/fs/inotify/max_user_instances", "fs.inotify.max_user_instances", "8192", fewWatches, "inotify instances of one user: kubectl logs -f and many programs need one each"},
		{"/proc/sys/fs/inotify/max_user_watches", "fs.inotify.max_user_watches", "524288", fewFiles / 4, "inotify watches of one user"},
	} {
		n, ok := h.number(limit.file)
		if !ok || n >= limit.least {
			continue
		}
		f := r.add(Warning, "sysctl -w "+limit.name+"="+limit.value, "there may be only %d %s", n, limit.what)
		f.Fix = h.write(limit.file, limit.value)
	}
	if len(r.findings) == 0 {
		r.ok("files, processes and inotify")
	}
}

// swap looks whether memory limits mean what they say.
func (h Host) swap(_ context.Context, r *report) {
	text, err := h.read("/proc/swaps")
	if err != nil {
		return
	}
	if strings.Count(text, "\n") == 0 {
		r.ok("none")
		return
	}
	accounted := h.exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes") || h.exists("/sys/fs/cgroup/cgroup.controllers")
	if !accounted {
		r.add(Warning, "swapoff -a, or boot with swapaccount=1", "there is swap, and the kernel does not count it: a memory limit does not hold")
		return
	}
	r.add(Note, "swapoff -a", "there is swap: kubelet needs failSwapOn: false, or swap off")
}

// clock looks whether it may be trusted: tokens and certificates depend on it.
func (h Host) clock(_ context.Context, r *report) {
	var state unix.Timex
	status, err := unix.Adjtimex(&state)
	const timeError = 5 // TIME_ERROR of adjtimex(2)
	switch {
	case time.Now().Year() < 2024:
		r.add(Problem, "set the clock, with: date -s", "the clock says %s: registries' certificates are not valid yet", time.Now().Format(time.DateOnly))
	case err != nil || status == timeError:
		r.add(Note, "apt-get install systemd-timesyncd, or another NTP client", "nothing keeps the clock right")
	default:
		r.ok("synchronised")
	}
}

// maxOutput bounds what is quoted of a program's words.
const maxOutput = 500

// runProgram runs one of the host's own programs, since a person asked for it.
func runProgram(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil && len(out) > 0 {
		return errors.New(strings.TrimSpace(string(out[:min(len(out), maxOutput)])))
	}
	return err
}
