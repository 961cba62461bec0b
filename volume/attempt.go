package volume

import (
	"context"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
)

// networkFilesystems are the types whose files another machine has. The kernel
// asks it when they are mounted, and may wait for minutes.
var networkFilesystems = []string{"nfs", "nfs4", "cifs"}

// mountPatience is how long a mount may take: a server, or a disk whose journal is
// read, or the device of another file system.
const mountPatience = 30 * time.Second

// attempt is one mount. It goes on when nobody waits for it any more, since the
// kernel cannot be told to give up; nothing is locked meanwhile.
type attempt struct {
	done chan struct{}
	// err is set before done is closed.
	err error
	// waiters counts who waits; guarded by Store.mu.
	waiters int
}

// isNetworked says whether a volume's files are on another machine: they are
// not looked at without need, for that may take for ever.
func isNetworked(v Volume) bool { return slices.Contains(networkFilesystems, v.Options["type"]) }

// attempt joins the mount under way, or begins one.
func (s *Store) attempt(name string, m mountRequest) *attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.mounting[name]
	if a == nil {
		a = &attempt{done: make(chan struct{})}
		s.mounting[name] = a
		// It ends when the kernel gives up, or with the process.
		go func() {
			var made bool
			made, a.err = s.mountOnce(m)
			s.settle(name, a, m.target, made)
			close(a.done)
		}()
	}
	a.waiters++
	return a
}

// mountOnce mounts unless an attempt that has just ended did; made says that it is
// this one's.
func (s *Store) mountOnce(m mountRequest) (made bool, err error) {
	if mounted, err := isMounted(m.target); err != nil || mounted {
		return false, err
	}
	err = s.mount(m)
	return err == nil, err
}

// leave says that one waits no more.
func (s *Store) leave(a *attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.waiters--
}

// settle ends an attempt: what it made when nobody wanted it any more is undone.
func (s *Store) settle(name string, a *attempt, target string, made bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mounting, name)
	if !made || a.waiters > 0 {
		return
	}
	if err := unmountAt(target); err != nil {
		logrus.WithError(err).WithField("volume", name).Warn("undo a mount that came too late")
	}
}

// address matches the option that names the server.
var address = regexp.MustCompile(`(^|,)addr=([^,]*)`)

// resolveAddress puts an address in place of the server's name, which the
// kernel does not look up.
func resolveAddress(ctx context.Context, data string) (string, error) {
	found := address.FindStringSubmatch(data)
	if found == nil || found[2] == "" || net.ParseIP(found[2]) != nil {
		return data, nil
	}
	addrs, err := net.DefaultResolver.LookupIPAddr(ctx, found[2])
	if err != nil {
		return "", err
	}
	at := max(0, slices.IndexFunc(addrs, func(a net.IPAddr) bool { return a.IP.To4() != nil }))
	return strings.Replace(data, "addr="+found[2], "addr="+addrs[at].String(), 1), nil
}
