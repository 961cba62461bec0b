package cli

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/creack/pty"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// podConfig is the pod.json of the README's part on crictl.
const podConfig = `{"metadata": {"name": "readme", "namespace": "default", "uid": "1"}, "linux": {}}`

// readmeCommands are the indented lines of the README that begin with a program's name.
func readmeCommands(t *testing.T, program string) (lines [][]string) {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "    "+program+" "); ok {
			lines = append(lines, words.FindAllString(rest, -1))
		}
	}
	if len(lines) == 0 {
		t.Fatalf("the README has no %s", program)
	}
	return lines
}

// words are those of a shell, with nothing but single quotes.
var words = regexp.MustCompile(`'[^']*'|\S+`)

// What the README has a person type works in the order it stands there.
func TestReadme(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	agent := testenv.Agent(t, testenv.AgentOptions{Registry: testenv.Registry(t)})
	r := &reader{
		t: t, env: append(os.Environ(), "NODEAGENT_HOST=unix://"+agent.Socket, "CONTAINER_RUNTIME_ENDPOINT=unix://"+agent.Socket, "HOME="+t.TempDir()),
		typed: strings.NewReplacer("REGISTRY/IMAGE", "nginx", "8080:", freePort(t, 8080)+":", "'", ""),
	}
	for _, args := range readmeCommands(t, "bin/nodectl") {
		r.run(testenv.Binary(t, "nodectl"), args)
	}
	pod := filepath.Join(t.TempDir(), "pod.json")
	if err := os.WriteFile(pod, []byte(podConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	r.typed = strings.NewReplacer("pod.json", pod)
	for _, args := range readmeCommands(t, "crictl") {
		r.run(testenv.Tool(t, "crictl"), args)
	}
}

// reader types what it reads.
type reader struct {
	t     *testing.T
	env   []string
	typed *strings.Replacer
}

func (r *reader) run(program string, args []string) {
	r.t.Helper()
	for i := range args {
		args[i] = r.typed.Replace(args[i])
	}
	cmd := exec.Command(program, args...)
	cmd.Env = r.env
	what := filepath.Base(program) + " " + strings.Join(args, " ")
	var code int
	var out string
	switch {
	case slices.Contains(args, "-it"):
		code, out = r.onTerminal(cmd, "exit\n")
	case slices.Contains(args, "-f") && args[0] == "logs":
		code, out = r.onTerminal(cmd, "\x03")
	default:
		text, _ := cmd.CombinedOutput() // the code tells
		code, out = cmd.ProcessState.ExitCode(), string(text)
	}
	if code != 0 {
		r.t.Errorf("%s: exit code %d: %s", what, code, out)
	}
}

// onTerminal runs a program on a terminal until it ends by what is typed. Being interrupted is no failure.
func (r *reader) onTerminal(cmd *exec.Cmd, keys string) (code int, shown string) {
	r.t.Helper()
	master, err := pty.Start(cmd)
	if err != nil {
		r.t.Fatal(err)
	}
	s := newScreen(master)
	defer s.close(cmd)
	if !s.expect(regexp.MustCompile(`\S`)) {
		return -1, "nothing is shown"
	}
	if _, err := io.WriteString(master, keys); err != nil {
		r.t.Fatal(err)
	}
	code, ok := s.exit(cmd)
	if !ok {
		return -1, fmt.Sprintf("did not end; on the screen is %q", s.text())
	}
	if keys == "\x03" && (code == -1 || code == 130) {
		code = 0
	}
	return code, s.text()
}
