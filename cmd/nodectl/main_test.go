package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"nodectl": func() { os.Exit(run(os.Args[1:])) }})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("", "nodectl")
			if err != nil {
				return err
			}
			env.Defer(func() { _ = os.RemoveAll(dir) })
			tb, ok := env.T().(testing.TB)
			if !ok {
				return os.ErrInvalid
			}
			env.Setenv("NODEAGENT_HOST", newFakeAgent().serve(tb, dir))
			env.Setenv("NOBODY", hostOf(dir))
			env.Setenv("HOME", env.WorkDir)
			// A command built with -race sleeps a second before it ends otherwise.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
	})
}
