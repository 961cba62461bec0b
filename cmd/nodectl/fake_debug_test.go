package main

import (
	"context"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// fakeDebug tells of a container "job" that failed, of a pod, of one operation
// that hangs, and of a host with one fault.
type fakeDebug struct {
	nodev1.UnimplementedDebugServer
}

func (fakeDebug) Why(_ context.Context, r *nodev1.WhyRequest) (*nodev1.WhyResponse, error) {
	at := func(s int64) *timestamppb.Timestamp { return timestamppb.New(time.Unix(1700000000+s, 25e6)) }
	switch r.GetObject() {
	case "":
		return &nodev1.WhyResponse{
			Kind: "node", State: "This went wrong in the last hour (1 in all):", Hints: []string{"Ask for the whole story with: nodectl why NAME"},
			Containers: []*nodev1.WhyContainer{{Id: podID, Name: "a/broken", State: "2 minutes ago", Cause: "It could not be made: \x1b[2Jno network."}},
		}, nil
	case "job":
		return &nodev1.WhyResponse{
			Kind: "container", Id: jobID, Name: "job", PodId: podID, Image: "old:1",
			State: "It ended with exit code 3 after running for 1h0m0s, 4 hours ago.",
			Cause: "Its process ended by itself and said that something failed; what it wrote last should say what.",
			Hints: []string{"Look.", "Look again, and at something that takes many words to say, so that the line does not fit into a terminal's."},
			Log:   []string{"one", "\x1b[2Jtwo"},
			Timeline: []*nodev1.Moment{
				{At: at(0), Took: durationpb.New(12345 * time.Microsecond), Text: "start container, asked by nodectl (PID 7): supervisor 12ms"},
				{At: at(3600), Text: "ended with exit code 3 after 1h0m0s"},
				{At: at(86400), Took: durationpb.New(time.Second), Text: "remove container", Error: "snapshot: busy"},
			},
			Dropped: 2,
		}, nil
	case "kube-system/coredns-x":
		return &nodev1.WhyResponse{
			Kind: "pod", Id: podID, Name: "kube-system/coredns-x", PodId: podID, State: "It is ready, made 20 hours ago.", Cause: "All is well: 1 container running.",
			Containers: []*nodev1.WhyContainer{{Id: podID, Name: "dns", State: "running", Cause: "Nothing is wrong with it as far as the agent knows."}},
			Timeline:   []*nodev1.Moment{{At: at(0), Text: "SIGHUP sent by nodectl (PID 3)", Container: "dns"}},
		}, nil
	}
	return nil, status.Errorf(codes.NotFound, "No such object: %s", r.GetObject())
}

func (fakeDebug) Operations(context.Context, *nodev1.OperationsRequest) (*nodev1.OperationsResponse, error) {
	ago := func(d time.Duration) *timestamppb.Timestamp {
		return timestamppb.New(time.Now().Add(-d - 100*time.Millisecond))
	}
	return &nodev1.OperationsResponse{Operations: []*nodev1.Operation{
		{
			What: "create container", Object: webID, Name: "web", Stage: "mounts", StageSince: ago(2 * time.Minute), Began: ago(3 * time.Minute),
			By: "kubelet (PID 7)", Blocked: []string{"system call < sandbox.(*Manager).resolveMounts", `newfstatat("/mnt/hung/x") in request_wait_answer (thread 12, state D)`},
		},
		{What: "PullImage", Name: "docker.io/library/alpine:3", Began: ago(time.Hour), StageSince: ago(time.Hour)},
	}}, nil
}

func (fakeDebug) Doctor(_ context.Context, r *nodev1.DoctorRequest) (*nodev1.DoctorResponse, error) {
	wrong := &nodev1.Finding{
		Level: nodev1.Finding_WARNING, Check: "ip forwarding", Text: "the kernel does not forward IPv4 packets",
		Remedy: "sysctl -w net.ipv4.ip_forward=1", Fixable: true, Fixed: r.GetFix(),
	}
	return &nodev1.DoctorResponse{Findings: []*nodev1.Finding{
		{Check: "kernel", Text: "Linux 6.1 has all that is used"}, wrong,
		{Level: nodev1.Finding_NOTE, Check: "checkpoints", Text: "CRIU is not installed", Remedy: "apt-get install criu"},
	}}, nil
}

// DiskUsage has busybox, which a container needs, and another image.
func (fakeStore) DiskUsage(context.Context, *nodev1.DiskUsageRequest) (*nodev1.DiskUsageResponse, error) {
	return &nodev1.DiskUsageResponse{
		Bytes: 10_000_000, ReclaimableBytes: 4_000_000,
		Images: []*nodev1.ImageDiskUsage{{Id: boxID, ExclusiveBytes: 5_000_000, SharedBytes: 1_000_000, InUse: true}, {Id: webHash, ExclusiveBytes: 4_000_000, SharedBytes: 1_000_000}},
	}, nil
}
