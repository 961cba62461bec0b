package nodeapi

import (
	"fmt"
	"testing"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestImageHealth(t *testing.T) {
	config := `{"config":{"Healthcheck":{"Test":["CMD-SHELL","curl -f localhost"],"Interval":5000000000,"Retries":7}}}`
	got := imageHealth([]byte(config))
	want := &nodev1.HealthCheck{Test: []string{"CMD-SHELL", "curl -f localhost"}, Interval: durationpb.New(5 * time.Second), Retries: 7}
	if !proto.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	for _, config := range []string{``, `{}`, `{"config":{"Healthcheck":{}}}`, `{"config":{"Healthcheck":{"Test":["RUN","x"]}}}`, `{"config":{"Healthcheck":{"Test":["CMD"]}}}`, `{"config":7}`} {
		if got := imageHealth([]byte(config)); got != nil {
			t.Errorf("%s: got %v", config, got)
		}
	}
	merged := mergeHealth(&nodev1.HealthCheck{Retries: 2, Timeout: durationpb.New(time.Second)}, want)
	if merged.GetTest()[1] != "curl -f localhost" || merged.GetRetries() != 2 || merged.GetTimeout().AsDuration() != time.Second || merged.GetInterval().AsDuration() != 5*time.Second {
		t.Errorf("merged %v", merged)
	}
	if hasCheck(mergeHealth(&nodev1.HealthCheck{Test: []string{"NONE"}}, want)) {
		t.Error("NONE leaves the image's check")
	}
}

func FuzzImageHealth(f *testing.F) {
	f.Add([]byte(`{"config":{"Healthcheck":{"Test":["CMD","x"],"Interval":1}}}`))
	f.Fuzz(func(t *testing.T, config []byte) {
		if h := imageHealth(config); h != nil && validateHealth(&nodev1.ContainerSpec{Health: h}) != nil {
			t.Error("an impossible check was taken")
		}
	})
}

func TestHealthStates(t *testing.T) {
	begun := time.Now()
	h := &health{begun: begun, status: healthStarting, check: &nodev1.HealthCheck{Retries: 2, StartPeriod: durationpb.New(10 * time.Second)}}
	var got []string
	for _, run := range []struct {
		after time.Duration
		code  int32
	}{{1, 1}, {2, 1}, {3, 1}, {11, 1}, {12, 1}, {13, 0}, {14, 1}, {15, 0}} {
		status, changed := h.add(&nodev1.HealthLog{ExitCode: run.code, Start: timestamppb.New(begun.Add(run.after * time.Second))})
		got = append(got, fmt.Sprint(status, " ", changed))
	}
	want := "[starting false starting false starting false starting false unhealthy true healthy true healthy false healthy false]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v", got)
	}
	if _, _, log := h.state(); len(log) != maxHealthLog {
		t.Errorf("%d runs kept", len(log))
	}
	if p := h.pause(begun); p != healthInterval {
		t.Errorf("pause %s", p)
	}
}

// What was known of a container's health is not asked anew because the agent was.
func TestHealthSurvivesTheAgent(t *testing.T) {
	n := newNode(t)
	spec := box("sleep")
	spec.Health = &nodev1.HealthCheck{Test: []string{"CMD", "false"}, Interval: durationpb.New(10 * time.Millisecond), Retries: 2}
	id := n.create("ill", spec)
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: id}); err != nil {
		t.Fatal(err)
	}
	var info *nodev1.InspectResponse
	inspect := func() {
		t.Helper()
		var err error
		if info, err = n.containers.Inspect(n.ctx, &nodev1.InspectRequest{Container: id}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "it fails five times", func() bool { inspect(); return info.GetFailingStreak() >= 5 })
	n.stop()
	before := info
	n.serve()
	eventually(t, "its health is known", func() bool { inspect(); return info.GetContainer().GetHealth() != "" })
	if info.GetContainer().GetHealth() != healthUnhealthy || info.GetFailingStreak() < before.GetFailingStreak() || len(info.GetHealthLog()) != maxHealthLog {
		t.Errorf("before %d, then %s %d %v", before.GetFailingStreak(), info.GetContainer().GetHealth(), info.GetFailingStreak(), info.GetHealthLog())
	}
	if _, err := n.containers.Kill(n.ctx, &nodev1.KillRequest{Container: id, Signal: "KILL"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it ends", func() bool { inspect(); return info.GetContainer().GetState() == "exited" })
	n.stop()
	n.serve()
	eventually(t, "its last health is known", func() bool { inspect(); return len(info.GetHealthLog()) == maxHealthLog })
	// Another run knows nothing yet.
	last := info.GetHealthLog()[maxHealthLog-1].GetStart().AsTime()
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: id}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is checked anew", func() bool {
		inspect()
		return len(info.GetHealthLog()) > 0 && info.GetHealthLog()[0].GetStart().AsTime().After(last)
	})
}

func TestHealthRecord(t *testing.T) {
	begun := time.Now()
	h := &health{begun: begun, status: healthStarting, check: &nodev1.HealthCheck{Interval: durationpb.New(time.Minute)}}
	h.add(&nodev1.HealthLog{ExitCode: 3, Start: timestamppb.New(begun), End: timestamppb.New(begun.Add(time.Second)), Output: "no\n"})
	other := &health{begun: begun, status: healthStarting, check: h.check}
	other.restore(h.record())
	if a, b := fmt.Sprint(other.record()), fmt.Sprint(h.record()); a != b {
		t.Errorf("%s, want %s", a, b)
	}
	for past, want := range map[time.Duration]time.Duration{0: time.Minute, 41 * time.Second: 20 * time.Second, time.Hour: 0} {
		if got := other.firstPause(begun.Add(past)); got != want {
			t.Errorf("after %s the first pause is %s, want %s", past, got, want)
		}
	}
	later := &health{begun: begun.Add(time.Second), status: healthStarting}
	later.restore(h.record())
	if status, streak, _ := later.state(); status != healthStarting || streak != 0 {
		t.Errorf("another run is %s %d", status, streak)
	}
}
