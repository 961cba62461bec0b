package crictl

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// nodectl shows a pod as crictl does, and tells of images that crictl pulls and removes.
func TestNodectlBesideCrictl(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	if os.Getenv("NODEAGENT_TEST_ENDPOINT") != "" {
		t.Skip("what answers there is no nodeagent")
	}
	s := newSession(t)
	nodectl := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(testenv.Run(t, testenv.Binary(t, "nodectl"), append([]string{"-H", s.endpoint}, args...)...).Stdout)
	}
	s.run(t, "pull", shellImage)
	s.run(t, "pull", webImage)
	s.runp(t)
	s.create(t)
	s.startContainers(t)
	for _, same := range []struct{ crictl, nodectl []string }{
		{[]string{"pods", "--output", "json"}, []string{"pods", "-o", "json"}},
		{[]string{"pods", "--output", "json", "--name", "sess", "--state", "ready", "--label", "app=session"}, []string{"pods", "-o", "json", "--name", "sess", "-s", "ready", "--label", "app=session"}},
		{[]string{"inspectp", "--quiet", "--output", "json", s.pod}, []string{"inspectp", "-q", s.pod}},
		{[]string{"metricdescs"}, []string{"metrics", "--descriptors"}},
	} {
		if theirs, ours := decoded(t, s.run(t, same.crictl...)), decoded(t, nodectl(same.nodectl...)); !reflect.DeepEqual(theirs, ours) {
			t.Errorf("%q gives %v, crictl %v", same.nodectl, ours, theirs)
		}
	}
	for _, similar := range []struct {
		crictl, nodectl []string
		want            []string
	}{
		{[]string{"stats", "--output", "json"}, []string{"cri-stats", "-o", "json"}, []string{s.web, s.shell, "usageCoreNanoSeconds"}},
		{[]string{"statsp", "--output", "json"}, []string{"cri-stats", "--pods", "-o", "json"}, []string{s.pod, "defaultInterface"}},
		{[]string{"metricsp"}, []string{"metrics"}, []string{s.pod, s.web, "container_network_receive_bytes_total"}},
	} {
		for _, out := range []string{s.run(t, similar.crictl...), nodectl(similar.nodectl...)} {
			for _, want := range similar.want {
				if !strings.Contains(out, want) {
					t.Errorf("%q lack %s: %s", similar.nodectl, want, out)
				}
			}
		}
	}
	if out := nodectl("cri-stats"); !strings.Contains(out, s.web[:13]) || !strings.HasPrefix(out, "CONTAINER") {
		t.Errorf("cri-stats: %s", out)
	}
	if out := nodectl("metrics", "-o", "text"); !strings.Contains(out, "# TYPE container_start_time_seconds gauge\n") {
		t.Errorf("metrics: %s", out)
	}
	nodectl("rmp", "-f", "crictl/session")
	s.run(t, "rmi", webImage)
	told := nodectl("events", "--since", "10m", "--until", "0s", "-f", "type=image", "--format", "{{.Action}} {{.Actor.ID}}")
	if !strings.Contains(told, "pull "+webImage) || !strings.Contains(told, "\nuntag sha256:") || !strings.Contains(told, "\ndelete sha256:") {
		t.Errorf("events: %s", told)
	}
}

func decoded(t *testing.T, text string) (value any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return value
}
