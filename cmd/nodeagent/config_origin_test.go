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
