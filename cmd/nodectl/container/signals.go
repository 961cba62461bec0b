package container

import (
	"context"
	"os"
	"os/signal"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"golang.org/x/sys/unix"
)

// proxySignals sends each signal nodectl gets to a container, until stop is
// called. Signals that are about nodectl itself are left out.
func proxySignals(ctx context.Context, client nodev1.ContainersClient, id string) (stop func()) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-signals:
				sendSignal(ctx, client, id, s)
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		cancel()
		<-done
	}
}

// sendSignal sends one signal. That the container has just ended is no news:
// its exit code follows.
func sendSignal(ctx context.Context, client nodev1.ContainersClient, id string, s os.Signal) {
	switch s {
	case unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGWINCH:
		return
	}
	number, ok := s.(unix.Signal)
	if !ok {
		return
	}
	if name := unix.SignalName(number); name != "" {
		_, _ = client.Kill(ctx, &nodev1.KillRequest{Container: id, Signal: name})
	}
}
