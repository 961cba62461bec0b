package nodeapi

import (
	"context"
	"os"
	"slices"
	"strings"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/internal/blocked"
	"github.com/nodeagent/nodeagent/internal/calls"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/protobuf/types/known/timestamppb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Operations is what the node API needs to tell what is under way; package
// sandbox has it.
type Operations interface {
	Operations(inWhat bool) []sandbox.Operation
}

// Calls tells which calls are under way; package calls has it.
type Calls interface {
	UnderWay() []calls.Call
}

// covered are calls that do nothing but wait for an operation.
var covered = []string{
	"RunPodSandbox", "StopPodSandbox", "RemovePodSandbox", "CreateContainer", "StartContainer", "StopContainer", "RemoveContainer",
	"Create", "Start", "Stop", "Remove",
}

// Operations lists what is under way: the operations of pods and containers,
// and the calls that do not just wait for one of those.
func (s *debug) Operations(context.Context, *nodev1.OperationsRequest) (*nodev1.OperationsResponse, error) {
	resp := &nodev1.OperationsResponse{}
	var askedBy []string
	if s.operations != nil {
		for _, op := range s.operations.Operations(true) {
			resp.Operations = append(resp.Operations, s.operationMessage(op))
			askedBy = append(askedBy, op.By)
		}
	}
	if s.calls != nil {
		for _, c := range s.calls.UnderWay() {
			if !slices.Contains(covered, c.Method) || !slices.Contains(askedBy, c.By) {
				resp.Operations = append(resp.Operations, s.callMessage(c))
			}
		}
	}
	slices.SortStableFunc(resp.Operations, func(a, b *nodev1.Operation) int {
		return a.GetBegan().AsTime().Compare(b.GetBegan().AsTime())
	})
	return resp, nil
}

func (s *Server) operationMessage(op sandbox.Operation) *nodev1.Operation {
	m := &nodev1.Operation{
		What: op.Verb, Object: op.ContainerID, Stage: op.Stage, StageSince: timestamppb.New(op.Since),
		Began: timestamppb.New(op.Began), By: op.By, Blocked: slices.Clone(op.Waits),
	}
	threads := op.Threads
	if slices.ContainsFunc(op.Waits, func(w string) bool { return strings.HasPrefix(w, blocked.OnSupervisor) }) {
		threads = append(slices.Clone(threads), s.supervisorThreads()...)
	}
	for _, t := range threads {
		text := t.String()
		if t.PID != os.Getpid() {
			text = "supervisor: " + text
		}
		m.Blocked = append(m.Blocked, text)
	}
	if op.ContainerID == "" {
		m.Object = op.PodID
	}
	if m.Name = s.nameOf(op.PodID, op.ContainerID); m.Name == "" {
		// What is being made is listed nowhere yet.
		m.Name = strings.TrimPrefix(op.What, op.Verb+" ")
	}
	return m
}

// supervisorThreads are those of the supervisor that wait in the kernel.
func (s *Server) supervisorThreads() []blocked.Thread {
	if s.supervisor == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.life, time.Second)
	defer cancel()
	info, err := s.supervisor.Info(ctx)
	if err != nil || info.PID == 0 {
		return nil
	}
	return blocked.Threads(info.PID)
}

func (s *Server) callMessage(c calls.Call) *nodev1.Operation {
	m := &nodev1.Operation{What: c.Method, Object: c.Container, Name: c.Name, Began: timestamppb.New(c.Began), StageSince: timestamppb.New(c.Began), By: c.By}
	if c.Container == "" {
		m.Object = c.Pod
	}
	if name := s.nameOf(c.Pod, c.Container); name != "" {
		m.Name = name
	}
	return m
}

// nameOf is what a person calls a pod or container; "" when it is not known.
func (s *Server) nameOf(pod, container string) string {
	if c, err := s.sandboxes.Container(container); err == nil && container != "" {
		return s.containerSubject(c).title()
	}
	if p, err := s.sandboxes.Pod(pod); err == nil && pod != "" {
		return podSubject(p).title()
	}
	return ""
}

// Resolve finds the IDs of what a person calls a container; both are empty
// when there is none.
func (s *Server) Resolve(name string) (pod, container string) {
	c, err := s.find(name)
	if err != nil {
		return "", ""
	}
	return c.PodID, c.ID
}

// PodOf finds the pod that has this metadata; "" when there is none.
func (s *Server) PodOf(meta *runtimeapi.PodSandboxMetadata) string {
	for _, pod := range s.sandboxes.Pods() {
		m := pod.Config.GetMetadata()
		if m.GetUid() == meta.GetUid() && m.GetName() == meta.GetName() && m.GetNamespace() == meta.GetNamespace() && m.GetAttempt() == meta.GetAttempt() {
			return pod.ID
		}
	}
	return ""
}
