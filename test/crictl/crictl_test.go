package crictl

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// command is one command of crictl and what is expected of it.
type command struct {
	name  string
	check func(*session, *testing.T)
}

// commands are in the order of a pod's life: each stands on those before it.
var commands = []command{
	{"version", (*session).version}, {"info", (*session).info}, {"config", (*session).settings},
	{"completion", (*session).completion}, {"runtime-config", (*session).runtimeConfig}, {"events", (*session).events},
	{"pull", (*session).pull}, {"images", (*session).images}, {"inspecti", (*session).inspecti},
	{"imagefsinfo", (*session).imagefsinfo}, {"runp", (*session).runp}, {"pods", (*session).pods},
	{"inspectp", (*session).inspectp}, {"create", (*session).create}, {"start", (*session).startContainers},
	{"ps", (*session).ps}, {"inspect", (*session).inspect}, {"exec", (*session).exec}, {"attach", (*session).attach},
	{"logs", (*session).logs}, {"port-forward", (*session).portForward}, {"stats", (*session).stats},
	{"statsp", (*session).statsp}, {"metricdescs", (*session).metricdescs}, {"metricsp", (*session).metricsp},
	{"update", (*session).update}, {"checkpoint", (*session).checkpoint}, {"stop", (*session).stop}, {"rm", (*session).remove},
	{"stopp", (*session).stopPod}, {"rmp", (*session).removePod}, {"run", (*session).runAtOnce}, {"rmi", (*session).rmi},
	{"update-runtime-config", (*session).updateRuntimeConfig},
}

func TestCommands(t *testing.T) {
	testenv.Root(t)
	if testing.Short() {
		t.Skip("starts an agent and pulls images")
	}
	testenv.Leaks(t)
	s := newSession(t)
	for _, one := range commands {
		t.Run(one.name, func(t *testing.T) { one.check(s, t) })
	}
	t.Run("every command is tried", s.everyCommand)
}

// everyCommand compares with crictl's own list, so that a new version's commands are not forgotten.
func (s *session) everyCommand(t *testing.T) {
	help := s.run(t, "--help")
	_, list, _ := strings.Cut(help, "COMMANDS:")
	list, _, _ = strings.Cut(list, "GLOBAL OPTIONS:")
	tried := map[string]bool{"help": true}
	for _, one := range commands {
		tried[one.name] = true
	}
	for _, found := range regexp.MustCompile(`(?m)^   ([a-z-]+)`).FindAllStringSubmatch(list, -1) {
		if !tried[found[1]] {
			t.Errorf("crictl %s is not tried", found[1])
		}
	}
}

func (s *session) version(t *testing.T) {
	s.contains(t, []string{"version"}, "RuntimeName:", "RuntimeVersion:", "RuntimeApiVersion:  v1")
}

func (s *session) info(t *testing.T) {
	s.contains(t, []string{"info"}, "RuntimeReady", "NetworkReady")
}

func (s *session) settings(t *testing.T) {
	s.run(t, "config", "--set", "debug=false")
	s.contains(t, []string{"config", "--get", "debug"}, "false")
	s.contains(t, []string{"config", "--list"}, "timeout")
}

func (s *session) completion(t *testing.T) {
	s.contains(t, []string{"completion", "bash"}, "_crictl")
}

func (s *session) runtimeConfig(t *testing.T) {
	s.contains(t, []string{"runtime-config"}, "CGROUPFS")
}

// events watches while a pod comes and goes.
func (s *session) events(t *testing.T) {
	watch := s.start(t, "events", "--output", "go-template", "--template", "{{.containerEventType}} {{.containerId}}\n")
	pod := s.write("event.json", map[string]any{
		"metadata": map[string]any{"name": "event", "namespace": "crictl", "uid": "event-1"}, "linux": map[string]any{},
	})
	// The first pods may come before the watch stands, so there is one after the other until it sees one.
	seen := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			id := testenv.Run(t, s.program, s.args([]string{"runp", pod})...)
			testenv.Run(t, s.program, s.args([]string{"rmp", "-f", strings.TrimSpace(id.Stdout)})...)
			select {
			case <-seen:
				return
			default:
			}
		}
	}()
	defer func() { close(seen); <-done }()
	watch.expect("CONTAINER_CREATED_EVENT")
	watch.expect("CONTAINER_STOPPED_EVENT")
	watch.expect("CONTAINER_DELETED_EVENT")
}

func (s *session) pull(t *testing.T) {
	for _, image := range []string{shellImage, webImage} {
		s.contains(t, []string{"pull", image}, "Image is up to date for")
	}
	if said := s.refused(t, "pull", "registry.k8s.io/no/such:image"); !strings.Contains(said, "registry.k8s.io/no/such:image") {
		t.Errorf("the error does not name the image: %s", said)
	}
}

func (s *session) images(t *testing.T) {
	name, tag, _ := strings.Cut(webImage, ":")
	s.contains(t, []string{"images"}, name, tag)
	if ids := strings.Fields(s.run(t, "images", "--quiet", webImage)); len(ids) != 1 {
		t.Errorf("%d images for one reference", len(ids))
	}
}

func (s *session) inspecti(t *testing.T) {
	s.contains(t, []string{"inspecti", webImage}, `"repoTags"`, webImage, `"repoDigests"`)
	s.refused(t, "inspecti", "registry.k8s.io/no/such:image")
}

func (s *session) imagefsinfo(t *testing.T) {
	s.contains(t, []string{"imagefsinfo"}, `"imageFilesystems"`, `"mountpoint"`, `"usedBytes"`)
}

func (s *session) runp(t *testing.T) {
	s.pod = s.run(t, "runp", s.podFile)
	if s.pod == "" {
		t.Fatal("no ID")
	}
}

func (s *session) pods(t *testing.T) {
	s.contains(t, []string{"pods", "--name", "session"}, "session", "crictl", "Ready", s.pod[:13])
	if ids := s.run(t, "pods", "--quiet", "--no-trunc", "--label", "app=session"); ids != s.pod {
		t.Errorf("found %q by label", ids)
	}
}

func (s *session) inspectp(t *testing.T) {
	s.contains(t, []string{"inspectp", s.pod}, s.pod, `"ip"`, "SANDBOX_READY")
	s.refused(t, "inspectp", "nosuchpod")
}

func (s *session) create(t *testing.T) {
	web := s.container("web", webImage, nil)
	shell := s.container("shell", shellImage, map[string]any{
		"command": []string{"sh", "-c", "while read line; do echo got $line; done"}, "stdin": true,
	})
	s.web = s.run(t, "create", "--no-pull", s.pod, web, s.podFile)
	s.shell = s.run(t, "create", "--no-pull", s.pod, shell, s.podFile)
	missing := s.container("missing", shellImage, map[string]any{
		"mounts": []map[string]any{{"host_path": "/no/such/path", "container_path": "/mnt"}},
	})
	if out := testenv.Run(t, s.program, s.args([]string{"create", "--no-pull", s.pod, missing, s.podFile})...); out.Code == 0 {
		t.Error("a container with a mount of a missing path was created")
		s.run(t, "rm", "--force", strings.TrimSpace(out.Stdout))
	} else if !strings.Contains(out.Stderr, "/no/such/path") {
		t.Errorf("the error does not name the path: %s", out.Stderr)
	}
}

func (s *session) startContainers(t *testing.T) {
	s.contains(t, []string{"start", s.web, s.shell}, s.web, s.shell)
	s.refused(t, "start", "nosuchcontainer")
}

func (s *session) ps(t *testing.T) {
	s.contains(t, []string{"ps"}, "web", "shell", "Running", s.web[:13])
	if ids := s.run(t, "ps", "--quiet", "--no-trunc", "--name", "^web$", "--pod", s.pod); ids != s.web {
		t.Errorf("found %q by name and pod", ids)
	}
}

func (s *session) inspect(t *testing.T) {
	s.contains(t, []string{"inspect", s.web}, s.web, "CONTAINER_RUNNING", `"logPath"`, `"startedAt"`)
	s.contains(t, []string{"inspect", "--output", "go-template", "--template", "{{.status.metadata.name}}", s.web[:8]}, "web")
}

func (s *session) exec(t *testing.T) {
	if got := s.run(t, "exec", s.shell, "echo", "hello"); got != "hello" {
		t.Errorf("got %q", got)
	}
	if got := s.run(t, "exec", "--sync", s.shell, "hostname"); got != "session" {
		t.Errorf("sync: got %q", got)
	}
	if got := s.onTerminal(t, "exec", "--tty", "--interactive", s.shell, "sh", "-c", "test -t 0 && tty"); !strings.Contains(got, "/dev/pts/") {
		t.Errorf("terminal: got %q", got)
	}
	s.refused(t, "exec", s.shell, "false")
	s.refused(t, "exec", s.shell, "/no/such/program")
}

func (s *session) attach(t *testing.T) {
	p := s.start(t, "attach", "--stdin", s.shell)
	if _, err := io.WriteString(p.stdin, "hello\n"); err != nil {
		t.Fatal(err)
	}
	p.expect("got hello")
}

func (s *session) logs(t *testing.T) {
	s.contains(t, []string{"logs", s.shell}, "got hello")
	s.contains(t, []string{"logs", "--tail", "1", "--timestamps", s.shell}, "got hello", "T")
	follow := s.start(t, "logs", "--follow", s.shell)
	follow.expect("got hello")
}

func (s *session) portForward(t *testing.T) {
	line := s.start(t, "port-forward", s.pod, ":80").expect("127.0.0.1:")
	address := regexp.MustCompile(`127\.0\.0\.1:[0-9]+`).FindString(line)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	answer, err := client.Get("http://" + address + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || !strings.Contains(string(body), "It works") {
		t.Errorf("%v: %s", err, body)
	}
}

func (s *session) stats(t *testing.T) {
	s.contains(t, []string{"stats", "--output", "json", s.web}, s.web, `"cpu"`, `"memory"`, `"writableLayer"`)
}

func (s *session) statsp(t *testing.T) {
	s.contains(t, []string{"statsp", "--output", "json", s.pod}, s.pod, `"cpu"`, `"memory"`, `"network"`)
}

func (s *session) metricdescs(t *testing.T) {
	s.contains(t, []string{"metricdescs"}, `"descriptors"`)
}

func (s *session) metricsp(t *testing.T) {
	s.contains(t, []string{"metricsp"}, `"podMetrics"`)
}

func (s *session) update(t *testing.T) {
	s.run(t, "update", "--memory", "134217728", "--cpu-share", "512", s.web)
	s.contains(t, []string{"inspect", s.web}, "134217728")
}

// checkpoint needs CRIU, which is not installed for these tests: the error must say what is missing, and the
// container must go on.
func (s *session) checkpoint(t *testing.T) {
	archive := filepath.Join(s.dir, "checkpoint.tar")
	said := s.refused(t, "checkpoint", "--export", archive, s.web)
	if !strings.Contains(strings.ToLower(said), "criu") && !strings.Contains(said, "Unimplemented") {
		t.Errorf("the error does not say why: %s", said)
	}
	if _, err := os.Stat(archive); err == nil {
		t.Error("it left a file")
	}
	s.contains(t, []string{"ps"}, s.web[:13])
}

func (s *session) stop(t *testing.T) {
	s.contains(t, []string{"stop", "--timeout", "5", s.shell}, s.shell)
	s.contains(t, []string{"ps", "--all"}, "Exited")
	s.run(t, "stop", s.shell)
}

func (s *session) remove(t *testing.T) {
	s.refused(t, "rm", s.web)
	s.contains(t, []string{"rm", "--force", s.web}, s.web)
	s.contains(t, []string{"rm", s.shell}, s.shell)
	if left := s.run(t, "ps", "--all", "--quiet", "--pod", s.pod); left != "" {
		t.Errorf("left: %s", left)
	}
}

func (s *session) stopPod(t *testing.T) {
	s.contains(t, []string{"stopp", s.pod}, s.pod)
	s.contains(t, []string{"pods", "--id", s.pod}, "NotReady")
}

func (s *session) removePod(t *testing.T) {
	s.contains(t, []string{"rmp", s.pod}, s.pod)
	if left := s.run(t, "pods", "--quiet", "--name", "session"); left != "" {
		t.Errorf("left: %s", left)
	}
}

// runAtOnce makes pod and container in one command.
func (s *session) runAtOnce(t *testing.T) {
	once := s.container("once", shellImage, map[string]any{"command": []string{"sleep", "1000"}})
	id := s.run(t, "run", once, s.podFile)
	s.contains(t, []string{"inspect", id}, "CONTAINER_RUNNING")
	s.run(t, "rmp", "--force", s.run(t, "pods", "--quiet", "--name", "session"))
}

func (s *session) rmi(t *testing.T) {
	s.contains(t, []string{"rmi", webImage}, webImage)
	s.refused(t, "inspecti", webImage)
}

func (s *session) updateRuntimeConfig(t *testing.T) {
	s.run(t, "update-runtime-config", "--pod-cidr", "10.219.0.0/16")
}
