// Package terminal handles the person's terminal: raw mode that is always
// taken back, its size, and the keys that detach.
package terminal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"

	mobyterm "github.com/moby/term"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// DefaultDetachKeys leave a container running.
const DefaultDetachKeys = "ctrl-p,ctrl-q"

// ErrDetached is what reading fails with once the detach keys were typed.
var ErrDetached = errors.New("read escape sequence")

// Is says whether a stream is a terminal.
func Is(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Raw puts a terminal in raw mode. restore puts it back and may be called
// more than once; until then the signals that end a process put it back
// before they do, and where nothing can be done any more, a guard does.
func Raw(f *os.File) (restore func(), err error) {
	fd := int(f.Fd())
	// Without a guard it is only not put back after SIGKILL.
	watch, _ := startGuard(f)
	state, err := term.MakeRaw(fd)
	if err != nil {
		watch.dismiss()
		return nil, fmt.Errorf("set terminal to raw mode: %w", err)
	}
	signals := make(chan os.Signal, 1)
	// Not SIGPIPE: who asks for it gets it for every socket too, such as the one
	// to an agent that has just died. Of a broken standard output the guard knows.
	signal.Notify(signals, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGINT)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-stop:
		case s := <-signals:
			_ = term.Restore(fd, state)
			os.Exit(128 + int(s.(unix.Signal)))
		}
	}()
	return sync.OnceFunc(func() {
		signal.Stop(signals)
		close(stop)
		<-stopped
		_ = term.Restore(fd, state)
		watch.dismiss()
	}), nil
}

// Size is the size of a terminal in characters; zeros when it has none.
func Size(stream any) (width, height int) {
	f, ok := stream.(*os.File)
	if !ok {
		return 0, 0
	}
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0, 0
	}
	return width, height
}

// FollowSize calls changed with each new size of the terminal until ctx is
// done. last is what the other side knows already. It returns at once; wait
// waits for its end.
func FollowSize(ctx context.Context, stream any, last [2]int, changed func(width, height int)) (wait func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGWINCH)
	if w, h := Size(stream); (w != last[0] || h != last[1]) && w > 0 && h > 0 {
		// It changed before anybody listened.
		changed(w, h)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer signal.Stop(signals)
		for {
			select {
			case <-ctx.Done():
				return
			case <-signals:
				if w, h := Size(stream); w > 0 && h > 0 {
					changed(w, h)
				}
			}
		}
	}()
	return func() { <-done }
}

// DetachKeys reads a description of keys, such as "ctrl-p,ctrl-q" or "a".
func DetachKeys(text string) ([]byte, error) {
	if text == "" {
		text = DefaultDetachKeys
	}
	keys, err := mobyterm.ToBytes(text)
	if err != nil {
		return nil, fmt.Errorf("invalid detach keys (%s): %w", text, err)
	}
	return keys, nil
}

// Detachable reads from r until the keys are typed, then fails with
// ErrDetached. The keys themselves are not given on.
func Detachable(r io.Reader, keys []byte) io.Reader {
	return &detachable{mobyterm.NewEscapeProxy(r, keys)}
}

type detachable struct {
	io.Reader
}

// Read reads what is not part of the keys.
func (d *detachable) Read(b []byte) (int, error) {
	n, err := d.Reader.Read(b)
	var escape mobyterm.EscapeError
	if errors.As(err, &escape) {
		err = ErrDetached
	}
	return n, err
}
