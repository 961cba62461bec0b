package calls

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/internal/recorder"
)

const (
	// slowAfter is after how long a call that should be quick is logged.
	slowAfter = 10 * time.Second
	// probePause is how often the failures of commands that kubelet probes
	// a container with are recorded at most, for each container.
	probePause = time.Minute
	// maxCommand is how many bytes of a command are kept.
	maxCommand = 120
	// maxProbed bounds the containers whose last failure is remembered.
	maxProbed = 1024
)

// asking begin the names of methods that change nothing.
var asking = []string{
	"Changes", "ContainerStat", "DiskUsage", "Doctor", "Explain", "Get", "History", "Image", "Info", "Inspect", "List", "Logs", "Operations",
	"PodSandboxStat", "Pulls", "Runtime", "Search", "Stat", "Stream", "Tags", "Top", "UpdateRuntimeConfig", "Version", "Wait", "Watch", "Why",
}

// patient are unary methods that may take as long as they like.
var patient = []string{"CheckpointContainer", "Commit", "ExecSync", "PullImage", "Restart", "Stop", "StopContainer", "Wait"}

// endless are methods that are under way as long as somebody looks.
var endless = []string{"Attach", "Exec", "GetContainerEvents", "Logs", "Operations", "Wait", "Watch"}

// Call is one call under way.
type Call struct {
	// Method is its name without the service; By who makes it.
	Method, By string
	// Pod and Container are the IDs it is about, Name what else it names.
	Pod, Container, Name string
	Began                time.Time
	// exit is the code that a command ended with.
	exit int32
}

// Table holds the calls under way.
type Table struct {
	recorder *recorder.Recorder
	// resolve finds the IDs of what a person calls a container.
	resolve func(name string) (pod, container string)
	// pod finds the ID of a pod by its metadata, podOf by that of one of its
	// containers; nil finds none.
	pod   func(*runtimeapi.PodSandboxMetadata) string
	podOf func(container string) string
	// before is called before each unary call of the node API and of images;
	// nil does nothing.
	before func(ctx context.Context, method string, req any)

	// mu guards the fields below.
	mu     sync.Mutex
	calls  map[*Call]bool
	probed map[string]time.Time
}

// NewTable makes a table. resolve may be nil.
func NewTable(r *recorder.Recorder, resolve func(name string) (pod, container string)) *Table {
	if resolve == nil {
		resolve = func(string) (string, string) { return "", "" }
	}
	return &Table{recorder: r, resolve: resolve, calls: map[*Call]bool{}, probed: map[string]time.Time{}}
}

// Before has fn called before a call is handled; nothing is served yet.
func (t *Table) Before(fn func(ctx context.Context, method string, req any)) { t.before = fn }

// Pods has byMetadata find the pods that images are pulled for, and byContainer
// those of calls that name a container alone; nothing is served yet.
func (t *Table) Pods(byMetadata func(*runtimeapi.PodSandboxMetadata) string, byContainer func(id string) string) {
	t.pod, t.podOf = byMetadata, byContainer
}

// UnderWay lists the calls, the oldest first, without those that last as long
// as somebody looks.
func (t *Table) UnderWay() []Call {
	t.mu.Lock()
	var all []Call
	for c := range t.calls {
		if !slices.Contains(endless, c.Method) {
			all = append(all, *c)
		}
	}
	t.mu.Unlock()
	slices.SortFunc(all, func(a, b Call) int { return cmp.Compare(a.Began.UnixNano(), b.Began.UnixNano()) })
	return all
}

// ServerOptions make a gRPC server keep the table.
func (t *Table) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(PeerCredentials()),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			c := t.begin(ctx, info.FullMethod, req)
			watch := c.watch()
			if t.before != nil && !strings.HasPrefix(info.FullMethod, "/runtime.v1.RuntimeService/") {
				t.before(ctx, c.Method, req)
			}
			resp, err := handler(recorder.WithCaller(ctx, c.By), req)
			if watch != nil {
				watch.Stop()
			}
			t.answered(c, resp)
			t.end(c, err)
			return resp, err
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			c := t.begin(stream.Context(), info.FullMethod, nil)
			s := &called{ServerStream: stream, ctx: recorder.WithCaller(stream.Context(), c.By), table: t, call: c}
			err := handler(srv, s)
			t.end(c, err)
			return err
		}),
	}
}

// called is a stream whose first message tells what it is about.
type called struct {
	grpc.ServerStream
	ctx   context.Context
	table *Table
	call  *Call
	once  sync.Once
}

// Context has the caller in it.
func (s *called) Context() context.Context { return s.ctx }

// RecvMsg looks at the first message.
func (s *called) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err == nil {
		s.once.Do(func() { s.table.about(s.call, m) })
	}
	return err
}

// begin enters a call.
func (t *Table) begin(ctx context.Context, method string, req any) *Call {
	c := &Call{Method: path.Base(method), By: Caller(ctx), Began: time.Now()}
	if req != nil && !asks(c.Method) {
		t.about(c, req)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls[c] = true
	return c
}

// about reads from a request what a call is about.
func (t *Table) about(c *Call, req any) {
	about := *c
	about.learn(req)
	if name := containerName(req); name != "" {
		about.Name = name
		about.Pod, about.Container = t.resolve(name)
	}
	if r, ok := req.(*runtimeapi.PullImageRequest); ok && t.pod != nil && r.GetSandboxConfig().GetMetadata() != nil {
		about.Pod = t.pod(r.GetSandboxConfig().GetMetadata())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	*c = about
}

// containerName is what a request of the node API calls its container.
func containerName(req any) string {
	switch r := req.(type) {
	case *nodev1.AttachRequest:
		return r.GetStart().GetContainer()
	case *nodev1.ExecRequest:
		return r.GetStart().GetContainer()
	case interface{ GetContainer() string }:
		return r.GetContainer()
	}
	return ""
}

// answered reads from an answer what a call was about.
func (t *Table) answered(c *Call, resp any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.learn(resp)
	if r, ok := resp.(*nodev1.CreateResponse); ok && r.GetId() != "" {
		c.Container = r.GetId()
	}
}

// learn reads the IDs that a message of CRI has, and the names of images.
func (c *Call) learn(message any) {
	if m, ok := message.(interface{ GetPodSandboxId() string }); ok && m.GetPodSandboxId() != "" {
		c.Pod = m.GetPodSandboxId()
	}
	if m, ok := message.(interface{ GetContainerId() string }); ok && m.GetContainerId() != "" {
		c.Container = m.GetContainerId()
	}
	if m, ok := message.(interface{ GetRef() string }); ok && m.GetRef() != "" {
		c.Name = m.GetRef()
	}
	switch r := message.(type) {
	case *runtimeapi.PullImageRequest:
		c.Name = r.GetImage().GetImage()
	case *runtimeapi.RunPodSandboxRequest:
		meta := r.GetConfig().GetMetadata()
		c.Name = meta.GetNamespace() + "/" + meta.GetName()
	case *runtimeapi.CreateContainerRequest:
		c.Name = r.GetConfig().GetMetadata().GetName()
	case *runtimeapi.ExecSyncRequest:
		c.Name = strings.Join(r.GetCmd(), " ")
		c.Name = c.Name[:min(len(c.Name), maxCommand)]
	case *runtimeapi.ExecSyncResponse:
		c.exit = r.GetExitCode()
	}
}

// watch logs a call that should have ended, until the timer is stopped; nil
// for one that may take its time.
func (c *Call) watch() *time.Timer {
	if slices.Contains(patient, c.Method) {
		return nil
	}
	method, by, began := c.Method, c.By, c.Began
	return time.AfterFunc(slowAfter, func() {
		logrus.WithFields(logrus.Fields{"method": method, "caller": by}).
			Warnf("call is still under way after %s", time.Since(began).Round(time.Second))
	})
}

// end takes a call off the table and tells the recorder.
func (t *Table) end(under *Call, err error) {
	t.mu.Lock()
	delete(t.calls, under)
	c := *under // a stream's first message may come this late
	t.mu.Unlock()
	if err == nil && c.exit != 0 {
		err = fmt.Errorf("exit code %d", c.exit)
	}
	if asks(c.Method) || c.Method == "ExecSync" && !t.newFailure(c.Container, err) {
		return
	}
	if c.Pod == "" && c.Container != "" && t.podOf != nil {
		c.Pod = t.podOf(c.Container)
	}
	e := recorder.Entry{
		Kind: recorder.KindCall, At: c.Began, Took: time.Since(c.Began), What: c.Method, By: c.By,
		Pod: c.Pod, Container: c.Container, Text: c.Name, Error: recorder.Words(err),
	}
	t.recorder.Note(e)
}

// newFailure says whether a command failed that did not a moment ago.
// kubelet's probes run all the time, and would fill the recorder.
func (t *Table) newFailure(container string, err error) bool {
	if err == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.probed[container]) < probePause {
		return false
	}
	if len(t.probed) >= maxProbed {
		clear(t.probed)
	}
	t.probed[container] = time.Now()
	return true
}

// asks says whether a method changes nothing.
func asks(method string) bool {
	return slices.ContainsFunc(asking, func(begin string) bool { return strings.HasPrefix(method, begin) })
}
