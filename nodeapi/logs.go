package nodeapi

import (
	"context"
	"strings"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/nodeapi/crilog"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// What one message of Logs carries at most; one entry may be longer.
const (
	maxBatchEntries = 256
	maxBatchBytes   = 64 << 10
)

// logsStream is the server's side of a Logs call.
type logsStream = grpc.ServerStreamingServer[nodev1.LogsResponse]

// Logs gives what a container wrote, and what it writes while it runs.
func (s *containers) Logs(req *nodev1.LogsRequest, stream logsStream) error {
	c, err := s.find(req.GetContainer())
	if err != nil {
		return s.remembered(stream.Context(), req.GetContainer(), err)
	}
	if c.LogPath == "" {
		return failf(errdefs.ErrFailedPrecondition, "configured logging driver does not support reading")
	}
	ctx, cancel := s.bound(stream.Context())
	defer cancel()
	o := crilog.Options{Tail: req.GetTail(), Older: rotationOf(s.specOf(c).GetLog()).files - 1}
	if req.GetSince() != nil {
		o.Since = req.GetSince().AsTime()
	}
	if req.GetUntil() != nil {
		o.Until = req.GetUntil().AsTime()
	}
	if req.GetFollow() && (running(c) || c.State == sandbox.ContainerCreated) {
		// One that removes itself keeps its log until it is read.
		defer s.hold(c)()
		if o.Follow, err = s.ended(ctx, c.ID); err != nil {
			return err
		}
	}
	b := &logBatch{stream: stream}
	return crilog.Read(ctx, c.LogPath, o, b.add, b.flush)
}

// remembered adds to the error about a container that is not there where its
// last lines are, if it was once.
func (s *Server) remembered(ctx context.Context, name string, err error) error {
	if !errdefs.IsNotFound(err) {
		return err
	}
	was, missing := s.former(ctx, strings.TrimPrefix(name, "/"))
	if missing != nil || was.container == "" {
		return err
	}
	return failf(errdefs.ErrNotFound, "No such container: %s (it was removed; what it wrote last is shown by: nodectl why %s)", name, name)
}

// ended returns a channel that is closed once the container has ended.
func (s *Server) ended(ctx context.Context, id string) (<-chan struct{}, error) {
	done := make(chan struct{})
	ok := s.goBackground(func(context.Context) {
		defer close(done)
		// An error means that it is gone, or the caller has left.
		_, _ = s.sandboxes.WaitContainer(ctx, id)
	})
	if !ok {
		return nil, failf(errdefs.ErrUnavailable, "the agent is stopping")
	}
	return done, nil
}

// logBatch gathers entries into messages.
type logBatch struct {
	stream  logsStream
	entries []*nodev1.LogEntry
	bytes   int
}

// add adds a copy of an entry, and sends when there is enough.
func (b *logBatch) add(e crilog.Entry) error {
	data := make([]byte, 0, len(e.Data)+1)
	data = append(data, e.Data...)
	if !e.Partial {
		data = append(data, '\n')
	}
	entry := &nodev1.LogEntry{Time: timestamppb.New(e.Time), Data: data}
	if e.Stderr {
		entry.Stream = nodev1.Output_STDERR
	}
	b.entries = append(b.entries, entry)
	b.bytes += len(data)
	if len(b.entries) < maxBatchEntries && b.bytes < maxBatchBytes {
		return nil
	}
	return b.flush()
}

// flush sends what was gathered.
func (b *logBatch) flush() error {
	if len(b.entries) == 0 {
		return nil
	}
	entries := b.entries
	b.entries, b.bytes = nil, 0
	return b.stream.Send(&nodev1.LogsResponse{Entries: entries})
}
