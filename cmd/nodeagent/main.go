// Command nodeagent is the node agent: it serves CRI v1 and the node API on a
// Unix socket, and builds, runs and stops every part of itself in order.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"

	"golang.org/x/sys/unix"
)

// minProcs is how many of Go's processors there are at least. One is held by
// a system call that waits for the disk until the runtime takes it away; with
// two, pulls stood still meanwhile.
const minProcs = 4

func main() {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < minProcs {
		runtime.GOMAXPROCS(minProcs)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	err := newRootCommand().ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "nodeagent: %v\n", err)
	var usage usageError
	if errors.As(err, &usage) {
		os.Exit(2)
	}
	os.Exit(1)
}

// usageError is an error in how the program was called or configured; its exit
// code is 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }
