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
	"github.com/nodeagent/nodeagent/cmd/nodectl/interrupt"
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
// more than once. proxied says that signals go elsewhere and end nothing.
func Raw(f *os.File, proxied bool) (restore func(), err error) {
	if restore, err = keep(f, proxied); err != nil {
		return nil, err
	}
	if _, err := term.MakeRaw(int(f.Fd())); err != nil {
		restore()
		return nil, fmt.Errorf("set terminal to raw mode: %w", err)
	}
	return restore, nil
}

// keep remembers the mode of a terminal that is about to be changed. restore
// puts it back; until it is called the signals that end a process put it back
// before they do, and where nothing can be done any more, such as after
// SIGKILL or a broken standard output, a guard does.
func keep(f *os.File, proxied bool) (restore func(), err error) {
	state, err := term.GetState(int(f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("read the terminal's mode: %w", err)
	}
	watch, _ := startGuard(f) // without one all but the last holds
	back := func() {
		_ = term.Restore(int(f.Fd()), state)
		// One that is left would put it back once more, when whoever has the
		// terminal next may have changed it.
		watch.dismiss()
	}
	stop := func() {}
	if !proxied {
		stop = interrupt.Undo(back)
	}
	return sync.OnceFunc(func() {
		stop()
		back()
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
