// Package interrupt undoes what is half done before a signal ends nodectl.
package interrupt

import (
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// endings are the signals that end a process and can be caught. SIGPIPE is not
// among them: who asks for it gets it for every socket too, such as the one to
// an agent that has just died.
var endings = []os.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGINT}

// Undo has undo called when a signal ends nodectl, which then exits with 128
// and the signal's number, until stop is called. There is one at a time.
func Undo(undo func()) (stop func()) {
	signals := make(chan os.Signal, 1)
	for _, s := range endings {
		// Those that nohup, or a shell for what it runs in the background, has
		// ignored end nothing.
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	stopping, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-stopping:
		case s := <-signals:
			undo()
			os.Exit(128 + int(s.(unix.Signal)))
		}
	}()
	return sync.OnceFunc(func() {
		signal.Stop(signals)
		close(stopping)
		<-stopped
	})
}
