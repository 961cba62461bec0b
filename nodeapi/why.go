package nodeapi

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/internal/recorder"
	"github.com/nodeagent/nodeagent/nodeapi/crilog"
	"github.com/nodeagent/nodeagent/nodeapi/diagnosis"
	"github.com/nodeagent/nodeagent/sandbox"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// defaultMoments and maxMoments bound a story.
	defaultMoments = 200
	maxMoments     = 5000
	// whyTimeout bounds the reading of the recorder and of cgroups.
	whyTimeout = 20 * time.Second
)

// Why tells the story of a pod or container.
func (s *debug) Why(ctx context.Context, req *nodev1.WhyRequest) (*nodev1.WhyResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, whyTimeout)
	defer cancel()
	if req.GetObject() == "" {
		return s.whyNode(ctx)
	}
	name := strings.TrimPrefix(req.GetObject(), "/")
	subject, err := s.subject(ctx, name)
	if err != nil {
		return nil, err
	}
	limit := int(min(cmp.Or(max(req.GetMoments(), 0), defaultMoments), maxMoments))
	if subject.container == "" {
		return s.whyPod(ctx, subject, limit)
	}
	return s.whyContainer(ctx, subject, limit)
}

// subject is what a story is about: a container, or a pod when container is
// empty.
type subject struct {
	pod, container string
	names          recorder.Names
	// refused are calls for a pod that never got an ID.
	refused []recorder.Entry
}

// title is what a person calls it.
func (s subject) title() string {
	if s.names.Owner == string(sandbox.OwnerNodectl) {
		return cmp.Or(s.names.Container, s.names.Pod)
	}
	title := s.names.Namespace + "/" + s.names.Pod
	if s.container != "" {
		title += "/" + s.names.Container
	}
	return title
}

// subject finds what a person means: first what is there, then what the
// recorder knows.
func (s *Server) subject(ctx context.Context, name string) (subject, error) {
	if name == "" {
		return subject{}, failf(errdefs.ErrInvalidArgument, "No such object: %s", name)
	}
	pod, ambiguous := s.findPod(name)
	if ambiguous == nil && pod.Owner == sandbox.OwnerCRI {
		return podSubject(pod), nil
	}
	c, err := s.find(name)
	if err == nil {
		return s.containerSubject(c), nil
	}
	for _, err := range []error{err, ambiguous} {
		if errdefs.IsInvalidArgument(err) {
			return subject{}, err
		}
	}
	return s.former(ctx, name)
}

func podSubject(pod sandbox.Pod) subject {
	meta := pod.Config.GetMetadata()
	return subject{pod: pod.ID, names: recorder.Names{
		Namespace: meta.GetNamespace(), Pod: meta.GetName(), Attempt: meta.GetAttempt(), Owner: string(pod.Owner),
	}}
}

func (s *Server) containerSubject(c sandbox.Container) subject {
	found := subject{pod: c.PodID, container: c.ID}
	if pod, err := s.sandboxes.Pod(c.PodID); err == nil {
		found.names = podSubject(pod).names
	}
	found.names.Container, found.names.Attempt = c.Config.GetMetadata().GetName(), c.Config.GetMetadata().GetAttempt()
	found.names.Image, found.names.Owner = cmp.Or(c.Config.GetImage().GetUserSpecifiedImage(), c.ImageRef), string(c.Owner)
	return found
}

// findPod finds a pod of kubelet's by ID, its beginning, NAMESPACE/NAME, or
// NAME where only one has it; the newest of a name.
func (s *Server) findPod(name string) (sandbox.Pod, error) {
	if pod, err := s.sandboxes.Pod(name); err == nil {
		return pod, nil
	}
	var found []sandbox.Pod
	for _, pod := range s.sandboxes.Pods() {
		meta := pod.Config.GetMetadata()
		if pod.Owner == sandbox.OwnerCRI && (meta.GetNamespace()+"/"+meta.GetName() == name || meta.GetName() == name) {
			found = append(found, pod)
		}
	}
	if len(found) == 0 {
		return sandbox.Pod{}, failf(errdefs.ErrNotFound, "No such pod: %s", name)
	}
	for _, pod := range found[1:] {
		if pod.Config.GetMetadata().GetNamespace() != found[0].Config.GetMetadata().GetNamespace() {
			return sandbox.Pod{}, failf(errdefs.ErrInvalidArgument, "several namespaces have a pod %s: name one as NAMESPACE/%s", name, name)
		}
	}
	return found[0], nil
}

// former finds something that was removed: the latest that matches.
func (s *Server) former(ctx context.Context, name string) (subject, error) {
	var found *subject
	err := s.recorder.Scan(ctx, `"kind":"made"`, func(e recorder.Entry) bool {
		if e.Kind == recorder.KindMade && e.Names != nil && called(e, name) {
			found = &subject{pod: e.Pod, container: e.Container, names: *e.Names}
		}
		return true
	})
	if err != nil {
		return subject{}, err
	}
	if found == nil {
		return s.refused(ctx, name)
	}
	if found.container == "" && found.names.Owner == string(sandbox.OwnerNodectl) {
		return s.inner(ctx, *found)
	}
	return *found, nil
}

// refused finds a pod that was asked for and refused at once.
func (s *Server) refused(ctx context.Context, name string) (subject, error) {
	var found subject
	err := s.recorder.Scan(ctx, name, func(e recorder.Entry) bool {
		namespace, pod, _ := strings.Cut(e.Text, "/")
		if e.Kind == recorder.KindCall && e.What == "RunPodSandbox" && e.Error != "" && e.Pod == "" && (e.Text == name || pod == name) {
			found.names = recorder.Names{Namespace: namespace, Pod: pod, Owner: string(sandbox.OwnerCRI)}
			if found.refused = append(found.refused, e); len(found.refused) > defaultMoments {
				found.refused = found.refused[1:]
			}
		}
		return true
	})
	if err != nil || len(found.refused) > 0 {
		return found, err
	}
	parts := strings.SplitN(name, "/", 3)
	if len(parts) == 2 {
		return found, failf(errdefs.ErrNotFound, "No such object: %s (nobody asked the agent for such a pod; what holds it up may be on kubelet's side: kubectl describe pod -n %s %s)",
			name, parts[0], parts[1])
	}
	if len(parts) == 3 {
		if pod, err := s.findPod(parts[0] + "/" + parts[1]); err == nil {
			return found, failf(errdefs.ErrNotFound, "No such object: %s (nobody asked for this container so far; of its pod tells: nodectl why %s)",
				name, podSubject(pod).title())
		}
	}
	return found, failf(errdefs.ErrNotFound, "No such object: %s", name)
}

// inner is the container of one of nodectl's pods.
func (s *Server) inner(ctx context.Context, pod subject) (subject, error) {
	found := pod
	err := s.recorder.Scan(ctx, pod.pod, func(e recorder.Entry) bool {
		if e.Kind == recorder.KindMade && e.Container != "" && e.Names != nil {
			found.container, found.names = e.Container, *e.Names
		}
		return true
	})
	return found, err
}

// leastPrefix is how much of an ID must be given of what was removed: there may
// be thousands.
const leastPrefix = 4

// called says whether an object that was made goes by a name.
func called(e recorder.Entry, name string) bool {
	n := e.Names
	if id := cmp.Or(e.Container, e.Pod); len(name) >= leastPrefix && strings.HasPrefix(id, name) {
		return true
	}
	if n.Owner == string(sandbox.OwnerNodectl) {
		return e.Container != "" && n.Container == name
	}
	pod := n.Namespace + "/" + n.Pod
	if e.Container != "" {
		return pod+"/"+n.Container == name
	}
	return pod == name || n.Pod == name
}

// whyContainer tells of a container; what happened to its pod belongs to it.
func (s *Server) whyContainer(ctx context.Context, of subject, limit int) (*nodev1.WhyResponse, error) {
	entries, err := s.entries(ctx, of, limit)
	if err != nil {
		return nil, err
	}
	about := s.describe(ctx, of, entries)
	about.Former, about.Failed = before(s.history(ctx, of.pod), of)
	story := diagnosis.Container(about)
	resp := s.whyResponse(of, story, entries)
	resp.Kind, resp.Id, resp.Image = "container", of.container, of.names.Image
	resp.Log = about.Output
	return resp, nil
}

// entries are those of a container and of its pod, or of a pod with all its
// containers, and of the agent in between.
func (s *Server) entries(ctx context.Context, of subject, limit int) ([]recorder.Entry, error) {
	if len(of.refused) > 0 {
		return of.refused[max(0, len(of.refused)-limit):], nil
	}
	all, err := s.recorder.Of(ctx, limit, of.pod)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(e recorder.Entry) bool {
		other := e.Kind == recorder.KindCall && e.What == "PullImage" && e.Text != of.names.Image
		return of.container != "" && (other || e.Container != "" && e.Container != of.container)
	})
	if len(all) == 0 {
		return nil, nil
	}
	first := all[0].At
	err = s.recorder.Scan(ctx, `"kind":"agent"`, func(e recorder.Entry) bool {
		if e.Kind == recorder.KindAgent && e.At.After(first) {
			all = append(all, e)
		}
		return true
	})
	slices.SortStableFunc(all, func(a, b recorder.Entry) int { return a.At.Compare(b.At) })
	return all, err
}

// describe gathers what diagnosis needs of a container.
func (s *Server) describe(ctx context.Context, of subject, entries []recorder.Entry) diagnosis.Subject {
	about := diagnosis.Subject{Now: time.Now(), Names: of.names, State: diagnosis.Gone, Underway: s.underway(of)}
	for _, e := range entries {
		if e.Container == of.container || e.Container == "" && e.Kind != recorder.KindGone {
			about.Entries = append(about.Entries, e)
		}
	}
	about.Output = s.lastLog(ctx, of, entries)
	c, err := s.sandboxes.Container(of.container)
	if err != nil {
		if about.Underway != "" && !slices.ContainsFunc(about.Entries, func(e recorder.Entry) bool { return e.Kind == recorder.KindGone }) {
			about.State = diagnosis.Making
		}
		return about
	}
	about.State, about.Created, about.Started, about.Finished = string(c.State), c.CreatedAt, c.StartedAt, c.FinishedAt
	about.ExitCode, about.Reason, about.Message = c.ExitCode, c.Reason, recorder.Plain(c.Message)
	about.Restarting, about.GaveUp = s.restarting(c), s.gaveUp(c)
	if running(c) {
		about.Health = s.healthStory(c)
		about.FullDisk = fullDisk(c.LogPath)
		if detail, err := s.sandboxes.ContainerDetail(ctx, c.ID); err == nil {
			about.Usage = sandbox.UsageOf(detail.Cgroup)
		}
	}
	return about
}

// healthStory is what is known of a container's health check; zero without one.
func (s *Server) healthStory(c sandbox.Container) diagnosis.Health {
	check := s.specOf(c).GetHealth()
	if !hasCheck(check) {
		return diagnosis.Health{}
	}
	status, streak, log := s.knownHealth(c).state()
	told := diagnosis.Health{Unhealthy: status == healthUnhealthy, Streak: int(streak), Command: strings.Join(check.GetTest()[1:], " ")}
	if check.GetTest()[0] == "CMD-SHELL" {
		told.Command = fmt.Sprintf("/bin/sh -c %q", check.GetTest()[1])
	}
	if len(log) > 0 {
		told.Output = log[len(log)-1].GetOutput()
	}
	return told
}

// fullDisk is the folder of a log, if its disk has no room left.
func fullDisk(log string) string {
	var fs unix.Statfs_t
	dir := filepath.Dir(log)
	if log == "" || unix.Statfs(dir, &fs) != nil || fs.Blocks == 0 || fs.Bavail > 0 {
		return ""
	}
	return dir
}

// underway is an operation on the subject that has not ended, in words.
func (s *Server) underway(of subject) string {
	if s.calls != nil {
		for _, c := range s.calls.UnderWay() {
			if c.Method == "PullImage" && c.Pod == of.pod && of.container == "" && of.pod != "" {
				return fmt.Sprintf("pull of %s, for %s; how far it is says: nodectl pulls.", c.Name, time.Since(c.Began).Round(time.Millisecond))
			}
		}
	}
	if s.operations == nil || of.pod == "" { // one that was refused has no ID, like what is just being made
		return ""
	}
	var found *sandbox.Operation
	ops := s.operations.Operations(true)
	for i, op := range ops {
		fits := op.PodID == of.pod && (of.container == "" || op.ContainerID == of.container || op.ContainerID == "")
		// What waits for a container is explained by what the container waits for.
		if fits && (found == nil || op.ContainerID != "" && found.ContainerID == "") {
			found = &ops[i]
		}
	}
	if found == nil {
		return ""
	}
	if found.Verb == "stop container" && found.Killed && len(found.Waits) > 0 {
		return fmt.Sprintf("it is being stopped, and not even SIGKILL, sent %s ago, ends it, since it waits in the kernel: %s.",
			time.Since(found.Since).Round(time.Second), strings.Join(found.Waits, "; "))
	}
	text := fmt.Sprintf("%s, at stage %q for %s", found.Verb, found.Stage, time.Since(found.Since).Round(time.Millisecond))
	if waits := found.BlockedIn(); waits != "" && time.Since(found.Since) > slowStage {
		text += "; it waits for: " + waits
	}
	return text + "."
}

// slowStage is from when on it is told what a stage waits for.
const slowStage = time.Second

// history are the entries of a pod that tell how its containers began and
// ended.
func (s *Server) history(ctx context.Context, pod string) []recorder.Entry {
	var all []recorder.Entry
	_ = s.recorder.Scan(ctx, pod, func(e recorder.Entry) bool {
		if e.Container != "" && (e.Kind == recorder.KindMade || e.Kind == recorder.KindExit || e.Kind == recorder.KindOperation) {
			if all = append(all, e); len(all) > maxMoments {
				all = all[1:]
			}
		}
		return true
	})
	return all
}

// before gives the exit codes of the containers of the same name before it,
// and of its own runs before the last, and counts those that could not be made.
func before(history []recorder.Entry, of subject) (codes []int, failed int) {
	same := map[string]bool{}
	last := false // whether the last of codes is its own
	for _, e := range history {
		switch {
		case e.Kind == recorder.KindMade && e.Names != nil && e.Names.Container == of.names.Container:
			same[e.Container] = true
		case !same[e.Container] || same[of.container] && e.Container != of.container:
		case e.Kind == recorder.KindExit && e.Exit != nil:
			codes, last = append(codes, e.Exit.Code), e.Container == of.container
		case e.Kind == recorder.KindOperation && e.What == "start container" && e.Error == "" && e.Container == of.container:
			last = false
		case e.Kind == recorder.KindOperation && (e.What == "create container" || e.What == "start container") && e.Error != "" && e.Container != of.container:
			failed++
		}
	}
	if last {
		codes = codes[:len(codes)-1]
	}
	return codes, failed
}

// whyPod tells of a pod and, in short, of its containers.
func (s *Server) whyPod(ctx context.Context, of subject, limit int) (*nodev1.WhyResponse, error) {
	entries, err := s.entries(ctx, of, limit)
	if err != nil {
		return nil, err
	}
	about := diagnosis.Subject{Now: time.Now(), Names: of.names, State: diagnosis.Gone, Entries: entries, Underway: s.underway(of)}
	if pod, err := s.sandboxes.Pod(of.pod); err == nil {
		about.State, about.Created = string(pod.State), pod.CreatedAt
	} else if about.Underway != "" {
		about.State = diagnosis.Making
	}
	parts := s.parts(ctx, of, entries)
	resp := s.whyResponse(of, diagnosis.Pod(about, parts), entries)
	resp.Kind, resp.Id = "pod", of.pod
	for _, part := range parts {
		resp.Containers = append(resp.Containers, &nodev1.WhyContainer{Id: part.ID, Name: part.Name, State: part.State, Cause: part.Story.Cause})
	}
	return resp, nil
}

// parts are the containers of a pod, the newest of each name, in the order
// they were made: those that are there, and those that are not any more or
// never came to be.
func (s *Server) parts(ctx context.Context, of subject, entries []recorder.Entry) []diagnosis.Part {
	var subjects []subject
	seen := map[string]bool{}
	for _, c := range s.sandboxes.Containers() {
		name := c.Config.GetMetadata().GetName()
		if c.PodID == of.pod && !seen[name] {
			seen[name] = true
			subjects = append(subjects, s.containerSubject(c))
		}
	}
	slices.Reverse(subjects)
	var former []subject
	for _, e := range slices.Backward(entries) {
		if e.Kind == recorder.KindMade && e.Container != "" && e.Names != nil && !seen[e.Names.Container] {
			seen[e.Names.Container] = true
			former = append(former, subject{pod: of.pod, container: e.Container, names: *e.Names})
		}
	}
	slices.Reverse(former)
	history := s.history(ctx, of.pod)
	var parts []diagnosis.Part
	for _, sub := range append(former, subjects...) {
		about := s.describe(ctx, sub, entries)
		about.Former, about.Failed = before(history, sub)
		parts = append(parts, diagnosis.Part{ID: sub.container, Name: sub.names.Container, State: about.State, Exit: about.ExitCode, Story: diagnosis.Container(about)})
	}
	return parts
}

func (s *Server) whyResponse(of subject, story diagnosis.Story, entries []recorder.Entry) *nodev1.WhyResponse {
	resp := &nodev1.WhyResponse{
		Name: of.title(), PodId: of.pod, State: story.State, Cause: story.Cause, Hints: story.Hints, Dropped: s.recorder.Dropped(),
	}
	names := map[string]string{}
	for _, e := range entries {
		if e.Kind == recorder.KindMade && e.Names != nil {
			names[e.Container] = e.Names.Container
		}
	}
	for _, m := range diagnosis.Timeline(entries) {
		moment := &nodev1.Moment{At: timestamppb.New(m.At), Text: m.Text, Error: m.Error}
		if m.Took > 0 {
			moment.Took = durationpb.New(m.Took)
		}
		if of.container == "" && m.Container != "" {
			moment.Container = cmp.Or(names[m.Container], m.Container[:min(len(m.Container), 12)])
		}
		resp.Timeline = append(resp.Timeline, moment)
	}
	return resp
}

// logLines is how many of its last lines a story quotes.
const logLines = 10

// lastLog is what a container wrote last: what its log has now, or what the
// recorder kept.
func (s *Server) lastLog(ctx context.Context, of subject, entries []recorder.Entry) []string {
	var lines []string
	if c, err := s.sandboxes.Container(of.container); err == nil && c.LogPath != "" {
		o := crilog.Options{Tail: logLines, Older: rotationOf(s.specOf(c).GetLog()).files - 1}
		_ = crilog.Read(ctx, c.LogPath, o, func(e crilog.Entry) error {
			// A line may have any number of parts.
			lines = append(lines[max(0, len(lines)-logLines+1):], strings.ToValidUTF8(string(e.Data), "?"))
			return nil
		}, nil)
	}
	if len(lines) > 0 {
		return lines
	}
	for _, e := range slices.Backward(entries) {
		if e.Kind == recorder.KindExit && e.Container == of.container && e.Exit != nil {
			for _, line := range e.Exit.Log {
				lines = append(lines, plain(line))
			}
			break
		}
	}
	return lines[max(0, len(lines)-logLines):]
}

// plain takes CRI's time, stream and tag off a line of a log.
func plain(line string) string {
	if fields := strings.SplitN(line, " ", 4); len(fields) == 4 && (fields[1] == "stdout" || fields[1] == "stderr") {
		return fields[3]
	}
	return line
}
