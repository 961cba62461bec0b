package nodeapi

import (
	"os"
	"strings"
	"testing"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/nodeapi/crilog"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A line without end costs the agent no more memory than another, and what was
// rotated away a moment ago is still what was written last.
func TestLastLogIsBounded(t *testing.T) {
	n := newNode(t)
	spec := box("sleep")
	spec.Log = &nodev1.Log{Options: map[string]string{"max-size": "1m", "max-file": "2"}}
	id := n.create("c", spec)
	c, err := n.server.find(id)
	if err != nil {
		t.Fatal(err)
	}
	endless := strings.Repeat("2026-01-02T03:04:05Z stdout P part\n", 1000)
	if err := os.WriteFile(crilog.Rotated(c.LogPath, 1), []byte(endless+"2026-01-02T03:04:05Z stdout F end\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := n.server.lastLog(n.ctx, subject{pod: c.PodID, container: id}, nil)
	if len(lines) != logLines || lines[logLines-1] != "end" {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
}

// A name that several pods have is not taken for one of them.
func TestNamesOfSeveralPods(t *testing.T) {
	n := newNode(t)
	for _, namespace := range []string{"a", "b"} {
		if _, err := n.sandboxes.RunPod(n.ctx, sandbox.RunPodRequest{Owner: sandbox.OwnerCRI, Config: &runtime.PodSandboxConfig{
			Metadata: &runtime.PodSandboxMetadata{Name: "web", Namespace: namespace},
		}}); err != nil {
			t.Fatal(err)
		}
	}
	debug := nodev1.NewDebugClient(n.conn)
	_, err := debug.Why(n.ctx, &nodev1.WhyRequest{Object: "web"})
	wantError(t, err, codes.InvalidArgument, "several namespaces have a pod web")
	if why, err := debug.Why(n.ctx, &nodev1.WhyRequest{Object: "b/web"}); err != nil || why.GetName() != "b/web" {
		t.Errorf("got %v %v", why, err)
	}
}

// What the agent knows of health it says.
func TestWhyTellsOfHealth(t *testing.T) {
	n := newNode(t)
	spec := box("sleep")
	spec.Health = &nodev1.HealthCheck{Test: []string{"CMD-SHELL", "check it"}}
	id := n.create("c", spec)
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: id}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is checked", func() bool { return n.server.healthOf(id) != nil })
	for range healthRetries {
		n.server.healthOf(id).add(&nodev1.HealthLog{Start: timestamppb.New(time.Now()), ExitCode: 1, Output: "no answer"})
	}
	why, err := nodev1.NewDebugClient(n.conn).Why(n.ctx, &nodev1.WhyRequest{Object: "c"})
	if err != nil || !strings.Contains(why.GetCause(), `failed, 3 times in a row. The last time it said: "no answer".`) ||
		!strings.Contains(strings.Join(why.GetHints(), "\n"), `nodectl exec c /bin/sh -c "check it"`) {
		t.Errorf("got %v %v", why, err)
	}
}
