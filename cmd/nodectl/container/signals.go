package container

import (
	"cmp"
	"context"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"golang.org/x/sys/unix"
)

// lastStraw is how many signals an agent that does not answer leaves without an
// answer before one that ends processes ends nodectl; the number is docker's.
const lastStraw = 3

// errForced says that nodectl was ended like that, in docker's words.
var errForced = &command.Usage{Text: "\ngot 3 SIGTERM/SIGINTs, forcefully exiting"}

// proxySignals sends each signal nodectl gets to a container, until stop is
// called. Signals that are about nodectl itself are left out. giveUp is called
// when a person must not wait for the agent any more.
func proxySignals(ctx context.Context, client nodev1.ContainersClient, id string, giveUp func()) (stop func()) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	// These stop who uses the terminal from the background. Caught, they would
	// come again and again.
	signal.Reset(unix.SIGTTIN, unix.SIGTTOU)
	ctx, cancel := context.WithCancel(ctx)
	queue := make(chan string, cap(signals))
	var unanswered atomic.Int32
	var forced atomic.Bool
	var both sync.WaitGroup
	both.Go(func() {
		defer close(queue)
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-signals:
				name := signalName(s)
				if name == "" {
					continue
				}
				if unanswered.Add(1) >= lastStraw && (s == unix.SIGINT || s == unix.SIGTERM) {
					forced.Store(true)
					giveUp()
				}
				select {
				case queue <- name:
				case <-ctx.Done():
					return
				}
			}
		}
	})
	both.Go(func() {
		for name := range queue {
			// That the container has just ended is no news: its exit code follows.
			_, _ = client.Kill(ctx, &nodev1.KillRequest{Container: id, Signal: name})
			unanswered.Add(-1)
		}
	})
	return func() {
		// A further one must not keep nodectl from saying why it ends.
		if !forced.Load() {
			signal.Stop(signals)
		}
		cancel()
		both.Wait()
	}
}

// signalName is what the agent calls a signal; those without a name, of real
// time, it knows by number. Empty is one that is about nodectl.
func signalName(s os.Signal) string {
	switch s {
	case unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGWINCH:
		return ""
	}
	number, ok := s.(unix.Signal)
	if !ok {
		return ""
	}
	return cmp.Or(unix.SignalName(number), strconv.Itoa(int(number)))
}
