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
