package nodeapi

import (
	"context"
	"maps"
	"slices"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
)

// A container that removes itself is taken away behind the back of who ran it:
// the client has its exit code as soon as the container has ended, and does not
// wait for cgroups, network and mounts to go. Whoever could see the rest of it
// waits in settle.

// How long after the begin of a removal others wait for it: those who only look,
// whom what hangs over a disk or a network must not hold up, and those who want a
// name, ports or addresses that may be given back by it.
const (
	lookPatience = 5 * time.Second
	needPatience = 30 * time.Second
)

// leave begins the removal of a container that has ended. After Close it is
// left to the next agent.
func (s *Server) leave(c sandbox.Container) {
	s.goUnseen(func(ctx context.Context) { s.removeLogged(ctx, c) })
}

// goUnseen does in the background what nobody is to see the midst of, as far as
// that does not take too long.
func (s *Server) goUnseen(work func(ctx context.Context)) {
	done := make(chan struct{})
	s.mu.Lock()
	s.leaving[done] = time.Now()
	s.mu.Unlock()
	gone := func() {
		s.mu.Lock()
		delete(s.leaving, done)
		s.mu.Unlock()
		close(done)
	}
	if !s.goBackground(func(ctx context.Context) {
		defer gone()
		work(ctx)
	}) {
		gone()
	}
}

// blind are methods to which it makes no difference whether a container that
// leaves is gone.
var blind = []string{"Attach", "Exec", "Logs", "Start", "Wait", "Pull", "Version", "Top", "Stats", "Kill", "Pause", "Unpause"}

// Settle waits until those containers are gone that leave when it is called,
// where the method of the node API could see them.
func (s *Server) Settle(ctx context.Context, method string, req any) {
	if slices.Contains(blind, method) {
		return
	}
	patience := lookPatience
	if create, ok := req.(*nodev1.CreateRequest); ok {
		if !needs(create) {
			return
		}
		patience = needPatience
	}
	s.mu.Lock()
	all := maps.Clone(s.leaving)
	s.mu.Unlock()
	for done, begun := range all {
		bounded, cancel := context.WithDeadline(ctx, begun.Add(patience))
		select {
		case <-done:
		case <-bounded.Done():
		}
		cancel()
	}
}

// needs says whether a container that is to be made wants something that only
// one can have: a name, ports, addresses, or volumes.
func needs(r *nodev1.CreateRequest) bool {
	network := r.GetSpec().GetNetwork()
	return r.GetName() != "" || len(network.GetPorts()) > 0 || network.GetPublishAll() ||
		network.GetMode() != "" && network.GetMode() != networkBridge && network.GetMode() != networkHost ||
		slices.ContainsFunc(r.GetSpec().GetMounts(), func(m *nodev1.Mount) bool { return m.GetType() == nodev1.Mount_VOLUME })
}
