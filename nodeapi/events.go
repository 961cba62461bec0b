package nodeapi

import (
	"cmp"
	"strconv"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/nodeapi/eventlog"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// The types of events.
const (
	eventContainer = "container"
	eventImage     = "image"
	eventVolume    = "volume"
)

// Watch tells what happens.
func (s *events) Watch(req *nodev1.WatchRequest, stream grpc.ServerStreamingServer[nodev1.Event]) error {
	ctx, cancel := s.bound(stream.Context())
	defer cancel()
	var since, until time.Time
	if req.GetSince() != nil {
		since = req.GetSince().AsTime()
	}
	if req.GetUntil() != nil {
		until = req.GetUntil().AsTime()
	}
	return s.log.Watch(ctx, since, until, func(e eventlog.Event) error {
		return stream.Send(&nodev1.Event{
			Type: e.Type, Action: e.Action, Id: e.ID, Attributes: e.Attributes, At: timestamppb.New(e.At),
		})
	})
}

// emit tells who watches that something happened to an object.
func (s *Server) emit(kind, action, id string, attributes map[string]string) {
	s.log.Add(eventlog.Event{Type: kind, Action: action, ID: id, Attributes: attributes})
}

// emitPrune tells that what nothing needs was removed, and how many bytes that
// gave back.
func (s *Server) emitPrune(kind string, reclaimed int64) {
	s.emit(kind, "prune", "", map[string]string{"reclaimed": strconv.FormatInt(reclaimed, 10)})
}

// emitLost tells of the end of a container that an earlier agent did not tell of,
// when it was.
func (s *Server) emitLost(c sandbox.Container) {
	if s.log.Last(eventContainer, c.ID, "start", "die") == "start" {
		s.emitEndAt(c, c.FinishedAt)
	}
}

// emitContainer tells what happened to one of nodectl's containers. more are
// names and values beyond what each event of a container has.
func (s *Server) emitContainer(action string, c sandbox.Container, more ...string) {
	s.emitContainerAt(time.Time{}, action, c, more...)
}

// emitContainerAt is emitContainer for another time than now.
func (s *Server) emitContainerAt(at time.Time, action string, c sandbox.Container, more ...string) {
	if c.Owner != sandbox.OwnerNodectl {
		return
	}
	attributes := map[string]string{}
	for name, value := range c.Config.GetLabels() {
		attributes[name] = value
	}
	attributes["name"] = c.Config.GetMetadata().GetName()
	attributes["image"] = cmp.Or(s.specOf(c).GetImage(), s.specOf(c).GetRootfs(), c.Config.GetImage().GetUserSpecifiedImage())
	for i := 0; i+1 < len(more); i += 2 {
		attributes[more[i]] = more[i+1]
	}
	s.log.Add(eventlog.Event{Type: eventContainer, Action: action, ID: c.ID, Attributes: attributes, At: at})
}

// emitResize tells of a terminal's new size.
func (s *Server) emitResize(c sandbox.Container, size *nodev1.TerminalSize) {
	s.emitContainer("resize", c, "height", strconv.FormatUint(uint64(size.GetHeight()), 10), "width", strconv.FormatUint(uint64(size.GetWidth()), 10))
}

// emitEnd tells that a container ended.
func (s *Server) emitEnd(c sandbox.Container) { s.emitEndAt(c, time.Time{}) }

func (s *Server) emitEndAt(c sandbox.Container, at time.Time) {
	if c.Reason == "OOMKilled" && s.lastOOM(c) != "oom" {
		s.emitContainerAt(at, "oom", c)
	}
	ran := c.FinishedAt.Sub(c.StartedAt)
	if c.StartedAt.IsZero() {
		ran = 0 // it could not be started
	}
	s.emitContainerAt(at, "die", c, "exitCode", strconv.Itoa(int(personExit(c))), "execDuration", strconv.Itoa(int(ran/time.Second)))
}

// tellOOM tells that the kernel killed in a container for want of memory, unless
// its end was told, and with it this.
func (s *Server) tellOOM(c sandbox.Container) {
	s.tellStart(c)
	s.telling.Lock()
	defer s.telling.Unlock()
	s.mu.Lock()
	over := !s.kept(c.ID).ended.Before(c.StartedAt)
	s.mu.Unlock()
	if !over {
		s.emitContainer("oom", c)
	}
}

// tellLostOOM tells what happened while no agent listened.
func (s *Server) tellLostOOM(c sandbox.Container) {
	s.telling.Lock()
	defer s.telling.Unlock()
	if s.sandboxes.OOMKilled(c.ID) && s.lastOOM(c) == "start" {
		s.emitContainer("oom", c)
	}
}

// lastOOM is "oom" when that was told since the container's start, "start" when
// it was not, and empty when that is not known any more.
func (s *Server) lastOOM(c sandbox.Container) string {
	return s.log.Last(eventContainer, c.ID, "start", "oom")
}

// emitUses tells which volumes a container that starts or ended uses.
func (s *Server) emitUses(action string, c sandbox.Container) {
	for _, m := range s.specOf(c).GetMounts() {
		if m.GetType() == nodev1.Mount_VOLUME {
			attributes := map[string]string{"container": c.ID, "driver": "local"}
			if action == "mount" {
				attributes["destination"], attributes["propagation"] = m.GetTarget(), ""
				attributes["read/write"] = strconv.FormatBool(!m.GetReadOnly())
			}
			s.emit(eventVolume, action, m.GetSource(), attributes)
		}
	}
}

// tellStart tells of the start of a container, once for each. Who started it
// calls it too, so that what they tell comes after it.
func (s *Server) tellStart(c sandbox.Container) {
	s.telling.Lock()
	defer s.telling.Unlock()
	if !s.noteStart(c) {
		return
	}
	s.emitUses("mount", c)
	s.emitNetworks("connect", c)
	s.emitContainer("start", c)
}

// tellLostStart tells of the start of a container that an earlier agent did not
// tell of, since it was killed before that.
func (s *Server) tellLostStart(c sandbox.Container) {
	s.telling.Lock()
	defer s.telling.Unlock()
	if !s.noteStart(c) {
		return
	}
	if last := s.log.Last(eventContainer, c.ID, "create", "start", "die"); last == "create" || last == "die" {
		s.emitContainerAt(c.StartedAt, "start", c)
	}
}

// noteStart says whether the start of a container is news.
func (s *Server) noteStart(c sandbox.Container) bool {
	if c.StartedAt.IsZero() || c.Owner != sandbox.OwnerNodectl || !s.isThere(c) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kept(c.ID)
	if k.began.Equal(c.StartedAt) {
		return false
	}
	k.began = c.StartedAt
	return true
}
