package volume

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"github.com/sirupsen/logrus"
)

// networkFilesystems are the types whose files another machine has. The kernel
// asks it when they are mounted, and may wait for minutes.
var networkFilesystems = []string{"nfs", "nfs4", "cifs"}

// mountPatience is how long a server may take to let its files be mounted.
const mountPatience = 30 * time.Second

// attempt is one mount of a network's filesystem. It goes on when nobody waits
// for it any more, since the kernel cannot be told to give up.
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

// mountNetworked is Mount of a volume that another machine has. Those who want
// the same one share one attempt. mu is not held over it.
func (s *Store) mountNetworked(ctx context.Context, v Volume) error {
	target := s.Path(v.Name)
	// The table of mounts tells without asking the server.
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(target))
	if err != nil || len(mounts) > 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	m := mountOf(v, target)
	if m.data, err = resolveAddress(ctx, m.data); err != nil {
		return fmt.Errorf("error resolving passed in network volume address: %w: %w", err, errdefs.ErrUnavailable)
	}
	a := s.attempt(v.Name, m)
	select {
	case <-a.done:
		err = a.err
	case <-ctx.Done():
		err = fmt.Errorf("the server does not answer: %w", errdefs.ErrUnavailable)
	}
	s.leave(v.Name, a)
	if err != nil {
		return m.failure(err)
	}
	return nil
}

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
			a.err = s.mount(m)
			s.settle(name, a, m.target)
			close(a.done)
		}()
	}
	a.waiters++
	return a
}

// leave says that one waits no more.
func (s *Store) leave(name string, a *attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.waiters--
}

// settle ends an attempt: one that succeeded when nobody wanted it any more is
// undone.
func (s *Store) settle(name string, a *attempt, target string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mounting, name)
	if a.err != nil || a.waiters > 0 {
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
