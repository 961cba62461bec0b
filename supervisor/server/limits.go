package server

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// rlimitTypes are the resource limits of setrlimit(2), as the OCI runtime
// specification names them.
var rlimitTypes = map[string]int{
	"RLIMIT_AS":         unix.RLIMIT_AS,
	"RLIMIT_CORE":       unix.RLIMIT_CORE,
	"RLIMIT_CPU":        unix.RLIMIT_CPU,
	"RLIMIT_DATA":       unix.RLIMIT_DATA,
	"RLIMIT_FSIZE":      unix.RLIMIT_FSIZE,
	"RLIMIT_LOCKS":      unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK":    unix.RLIMIT_MEMLOCK,
	"RLIMIT_MSGQUEUE":   unix.RLIMIT_MSGQUEUE,
	"RLIMIT_NICE":       unix.RLIMIT_NICE,
	"RLIMIT_NOFILE":     unix.RLIMIT_NOFILE,
	"RLIMIT_NPROC":      unix.RLIMIT_NPROC,
	"RLIMIT_RSS":        unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO":     unix.RLIMIT_RTPRIO,
	"RLIMIT_RTTIME":     unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
	"RLIMIT_STACK":      unix.RLIMIT_STACK,
}

// limits is what this process may give to others. Where it lacks
// CAP_SYS_RESOURCE or other capabilities, as within a container or VM of
// somebody else, asking for more would fail each start with EPERM.
type limits struct {
	// caps are the capabilities we have, by the names of the OCI runtime
	// specification.
	caps map[string]bool
	// sysResource: any limit and any OOM score may be set.
	sysResource bool
	// oomScore is the oom_score_adj we were started with: the lowest we
	// may give without it, and what a process that names none gets.
	oomScore int

	warn struct{ caps, oom, rlimit sync.Once }
}

func readLimits() *limits {
	l := &limits{caps: map[string]bool{}}
	own, err := capability.NewPid2(0)
	if err == nil {
		err = own.Load()
	}
	known := capability.ListKnown()
	for _, c := range known {
		if err != nil || own.Get(capability.PERMITTED, c) && own.Get(capability.BOUNDING, c) {
			l.caps["CAP_"+strings.ToUpper(c.String())] = true
		}
	}
	l.sysResource = l.caps["CAP_SYS_RESOURCE"]
	if data, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		l.oomScore, _ = strconv.Atoi(strings.TrimSpace(string(data)))
	}
	return l
}

// ownOOMScore makes the kernel kill nearly anything before the supervisor.
const ownOOMScore = "-999"

// protect lowers our own oom_score_adj, where that is possible. Containers do
// not inherit it, since clamp gives each its own.
func (l *limits) protect() {
	if !l.sysResource {
		return
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(ownOOMScore), 0); err != nil {
		logrus.WithError(err).Warn("lower own oom_score_adj")
	}
}

// clamp lowers what a process asks for to what can be given.
func (l *limits) clamp(p *specs.Process) {
	l.clampCapabilities(p)
	if p.OOMScoreAdj == nil {
		score := l.oomScore
		p.OOMScoreAdj = &score
	}
	if l.sysResource {
		return
	}
	if *p.OOMScoreAdj < l.oomScore {
		l.warn.oom.Do(func() {
			logrus.Warnf("without CAP_SYS_RESOURCE no oom_score_adj below %d can be given, it is used instead", l.oomScore)
		})
		score := l.oomScore
		p.OOMScoreAdj = &score
	}
	for i := range p.Rlimits {
		l.clampRlimit(&p.Rlimits[i])
	}
}

func (l *limits) clampRlimit(r *specs.POSIXRlimit) {
	kind, ok := rlimitTypes[r.Type]
	if !ok {
		return
	}
	var own unix.Rlimit
	if err := unix.Getrlimit(kind, &own); err != nil || r.Hard <= own.Max {
		return
	}
	l.warn.rlimit.Do(func() {
		logrus.Warnf("without CAP_SYS_RESOURCE no %s above %d can be given, it is used instead", r.Type, own.Max)
	})
	r.Hard = own.Max
	r.Soft = min(r.Soft, own.Max)
}

func (l *limits) clampCapabilities(p *specs.Process) {
	if p.Capabilities == nil {
		return
	}
	c := p.Capabilities
	for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted, &c.Inheritable, &c.Ambient} {
		*set = slices.DeleteFunc(*set, func(name string) bool {
			// Names nobody knows are libcontainer's to judge.
			if l.caps[name] || capabilityBits()[name] == 0 {
				return false
			}
			l.warn.caps.Do(func() {
				logrus.Warnf("capability %s cannot be given, since the supervisor lacks it", name)
			})
			return true
		})
	}
}

// capabilityBits are the kernel's numbers by the names of the OCI runtime
// specification.
var capabilityBits = sync.OnceValue(func() map[string]uint64 {
	bits := map[string]uint64{}
	for _, c := range capability.ListKnown() {
		bits["CAP_"+strings.ToUpper(c.String())] = 1 << uint(c)
	}
	return bits
})
