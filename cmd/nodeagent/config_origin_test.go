package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/sirupsen/logrus"
)

func TestDumpTellsOrigins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	text := "# a comment\nroot = \"/a\"\n\n[handlers.x]\nnetwork = \"y\"\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := newRootCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"config", "dump", "--origin", "--config", path, "--state", "/s", "--certs-dir", "/c"})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"root = '/a'  # " + path + " line 2\n", "state = '/s'  # flag --state\n", "listen = 'unix:///s/nodeagent.sock'  # flag --state\n",
		"certs_dirs = ['/c']  # flag --certs-dir\n", "log_level = 'info'  # default\n", "[handlers.x]  # " + path + " line 4\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	// It is a configuration still.
	var cfg Config
	if err := toml.Unmarshal(out.Bytes(), &cfg); err != nil || cfg.Root != "/a" || cfg.Handlers["x"].Network != "y" {
		t.Errorf("%+v, %v", cfg, err)
	}
}

func TestEveryKeyHasItsFlagOrNone(t *testing.T) {
	cmd := newRootCommand()
	none := []string{"handlers"}
	text, err := toml.Marshal(defaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	for key := range linesOf(text) {
		if has := cmd.PersistentFlags().Lookup(flagOf(key)) != nil; has == slices.Contains(none, key) {
			t.Errorf("key %s and flag %s: %v", key, flagOf(key), has)
		}
	}
}

func TestReload(t *testing.T) {
	level := logrus.GetLevel()
	defer logrus.SetLevel(level)
	var log bytes.Buffer
	logrus.SetOutput(&log)
	defer logrus.SetOutput(os.Stderr)
	running := defaultConfig()
	next := running
	next.LogLevel, next.Root = "error", "/elsewhere"
	next.Handlers = map[string]Handler{"x": {}}
	now := reload(running, func() (Config, error) { return next, nil })
	if now.LogLevel != "error" || now.Root != running.Root || logrus.GetLevel() != logrus.ErrorLevel {
		t.Errorf("%+v at %v", now, logrus.GetLevel())
	}
	logrus.SetLevel(logrus.InfoLevel)
	log.Reset()
	_ = reload(now, func() (Config, error) { return next, nil })
	if !strings.Contains(log.String(), `needs_restart="handlers root"`) {
		t.Error(log.String())
	}
	log.Reset()
	if now = reload(now, func() (Config, error) { return Config{}, errors.New("line 3") }); now.LogLevel != "error" || !strings.Contains(log.String(), "line 3") {
		t.Errorf("%+v: %s", now, log.String())
	}
}

// What is wrong is told with the place it was said at: the file and its line, or the flag.
func TestWhatIsWrongIsPlaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	for _, test := range []struct {
		text string
		args []string
		want string
	}{
		{"# a\ncgroup_driver = \"odd\"\n", nil, path + ": line 2: cgroup_driver: \"odd\" is neither cgroupfs nor systemd"},
		{"log_level = \"loud\"\n", nil, path + ": line 1: log_level: \"loud\" is not trace, debug, info, warning or error"},
		{"", []string{"--log-level", "loud"}, "flag --log-level: log_level: \"loud\" is not trace, debug, info, warning or error"},
		{"[handlers.x]\npids_limit = -1\n", nil, path + ": line 1: handlers.x.pids_limit: -1 is negative"},
		{"root = 5\n", nil, path + ": line 1, column 8: root: a string belongs there, and it is of type integer"},
		{"certs_dirs = \"x\"\n", nil, path + ": line 1, column 14: certs_dirs: a list of strings belongs there, and it is of type string"},
		{"builtin_plugins = \"x\"\n", nil, path + ": line 1, column 19: builtin_plugins: true or false belongs there, and it is of type string"},
		{"rot = \"/x\"\n", nil, path + ": line 1: unknown key \"rot\"; did you mean \"root\"?"},
	} {
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := newRootCommand()
		cmd.SetOut(&bytes.Buffer{})
		cmd.SetErr(&bytes.Buffer{})
		cmd.SetArgs(append([]string{"config", "check", "--config", path}, test.args...))
		if err := cmd.Execute(); err == nil || err.Error() != test.want {
			t.Errorf("%q %v: %v, want %s", test.text, test.args, err, test.want)
		}
	}
}
