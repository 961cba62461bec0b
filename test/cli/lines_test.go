package cli

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// Every line of lines.txt is in a script, but for those that wait.
func TestEveryLineIsRun(t *testing.T) {
	lines, err := os.ReadFile("lines.txt")
	if err != nil {
		t.Fatal(err)
	}
	run := map[string]bool{}
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if line, ok := strings.CutPrefix(line, "# line: "); ok {
				run[strings.TrimSpace(line)] = true
			}
		}
	}
	known := 0
	for line := range strings.Lines(string(lines)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "later: ") {
			continue
		}
		if !run[line] {
			t.Errorf("no script runs %s", line)
		}
		delete(run, line)
		known++
	}
	for line := range run {
		t.Errorf("lines.txt has no %s", line)
	}
	if known < 55 {
		t.Errorf("lines.txt has %d lines", known)
	}
}

// TestLines runs the scripts, each against an agent of its own.
func TestLines(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	registry := testenv.Registry(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			tb, ok := env.T().(testing.TB)
			if !ok {
				return os.ErrInvalid
			}
			agent := testenv.Agent(tb, testenv.AgentOptions{Registry: registry, Args: []string{"--cdi-spec-dir", filepath.Join(env.WorkDir, "cdi")}})
			env.Values[agentValue{}] = agent
			env.Setenv("NODEAGENT_HOST", "unix://"+agent.Socket)
			env.Setenv("PATH", filepath.Dir(testenv.Binary(tb, "nodectl"))+string(os.PathListSeparator)+os.Getenv("PATH"))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("PORT", freePort(tb, 5000))
			env.Setenv("WEBPORT", freePort(tb, 8081))
			env.Setenv("ANYPORT", freePort(tb, 0))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"terminal": terminal, "get": get, "keep": keep, "eventually": eventually, "kill-agent": killAgent,
		},
	})
}

// agentValue is what a script's agent is kept by.
type agentValue struct{}

// killAgent is the command "kill-agent": it kills the agent and starts another.
func killAgent(ts *testscript.TestScript, neg bool, args []string) {
	agent, ok := ts.Value(agentValue{}).(*testenv.AgentProcess)
	if neg || len(args) != 0 || !ok {
		ts.Fatalf("usage: kill-agent")
	}
	agent.Kill9()
	agent.Start()
}

// freePort is the port of the tutorial, or another one where that is taken.
func freePort(t testing.TB, wanted int) string {
	t.Helper()
	for _, port := range []int{wanted, 0} {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		_, text, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return text
	}
	t.Fatal("no port is free")
	return ""
}

// get is the command "get URL PATTERN": it waits until the answer matches.
func get(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: get URL PATTERN")
	}
	pattern := regexp.MustCompile(args[1])
	client := &http.Client{Timeout: 2 * time.Second}
	last := ""
	if !until(func() bool {
		resp, err := client.Get(args[0])
		if err != nil {
			last = err.Error()
			return false
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		last = resp.Status + " " + string(body)
		return err == nil && pattern.MatchString(last)
	}) {
		ts.Fatalf("%s never gave %q, but %q", args[0], args[1], last)
	}
}

// keep is the command "keep VARIABLE": it puts what the last command wrote,
// without blanks around it, into a variable.
func keep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: keep VARIABLE")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// eventually is the command "eventually PATTERN PROGRAM ARGS": it runs a
// program again and again until its output matches.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN PROGRAM [ARGS]")
	}
	pattern := regexp.MustCompile(args[0])
	if !until(func() bool {
		err := ts.Exec(args[1], args[2:]...)
		return err == nil && pattern.MatchString(ts.ReadFile("stdout"))
	}) {
		ts.Fatalf("%q never came, but %q", args[0], ts.ReadFile("stdout"))
	}
}

// until asks every 50 ms, for as long as patience lasts.
func until(done func() bool) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			return false
		}
	}
	return true
}
