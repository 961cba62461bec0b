// Package failpoint breaks the program at named places, so that tests can see
// what it makes of it. It does nothing, at the price of one atomic load,
// unless the environment variable NODEAGENT_FAILPOINTS was set when the
// program started, or a test called Enable.
//
// The variable holds "name=action" separated by commas. Actions:
//
//	error        the place fails with ErrInjected
//	error:N      it fails N times, then works
//	exit         the program is killed with SIGKILL there
//	wait:PATH    it stays there until PATH exists
package failpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// EnvVar is read once, at the program's start.
const EnvVar = "NODEAGENT_FAILPOINTS"

// ErrInjected is the error of a place that was made to fail.
var ErrInjected = errors.New("injected failure")

// action is what happens at a place.
type action struct {
	verb, arg string
	// left counts the failures still to come; negative means without end.
	left atomic.Int64
}

var active atomic.Pointer[map[string]*action]

func init() {
	spec := os.Getenv(EnvVar)
	if spec == "" {
		return
	}
	if _, err := Enable(spec); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", EnvVar, err)
		os.Exit(2)
	}
}

// Enable makes the failpoints of spec the active ones, in place of all
// others. disable puts those back that were active before.
func Enable(spec string) (disable func(), err error) {
	points, err := parse(spec)
	if err != nil {
		return nil, err
	}
	before := active.Swap(&points)
	return func() { active.Store(before) }, nil
}

// parse reads "name=action,name=action".
func parse(spec string) (map[string]*action, error) {
	points := map[string]*action{}
	for item := range strings.SplitSeq(spec, ",") {
		name, rest, ok := strings.Cut(item, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("failpoint %q: want name=action", item)
		}
		verb, arg, _ := strings.Cut(rest, ":")
		a := &action{verb: verb, arg: arg}
		a.left.Store(-1)
		switch verb {
		case "exit":
		case "wait":
			if arg == "" {
				return nil, fmt.Errorf("failpoint %q: wait needs a path", item)
			}
		case "error":
			if arg == "" {
				break
			}
			n, err := strconv.ParseInt(arg, 10, 32)
			if err != nil || n < 1 {
				return nil, fmt.Errorf("failpoint %q: not a number of times: %q", item, arg)
			}
			a.left.Store(n)
		default:
			return nil, fmt.Errorf("failpoint %q: unknown action %q", item, verb)
		}
		points[name] = a
	}
	return points, nil
}

// Inject is called at the place name. A nil error means: go on.
func Inject(ctx context.Context, name string) error {
	points := active.Load()
	if points == nil {
		return nil
	}
	a := (*points)[name]
	if a == nil {
		return nil
	}
	switch a.verb {
	case "exit":
		// SIGKILL, so that nothing deferred is run.
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "wait":
		return waitFor(ctx, a.arg)
	}
	for {
		left := a.left.Load()
		if left == 0 {
			return nil
		}
		if left < 0 || a.left.CompareAndSwap(left, left-1) {
			return fmt.Errorf("%s: %w", name, ErrInjected)
		}
	}
}

// Reached is the file beside a "wait" action's path that appears when
// somebody waits there.
func Reached(path string) string { return path + ".reached" }

// waitFor returns once path exists, and says by Reached that it waits.
func waitFor(ctx context.Context, path string) error {
	if err := os.WriteFile(Reached(path), nil, 0o600); err != nil {
		return err
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Lstat(path); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
