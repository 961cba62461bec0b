// Package turns lets one caller at a time work on an object that has a name,
// with a bound on the wait for the one before.
package turns

import (
	"context"
	"sync"
)

// Turns are the turns at any number of objects. Its zero value is ready.
type Turns struct {
	// mu guards lines.
	mu    sync.Mutex
	lines map[string]*line
}

// line is who waits for one object or works on it; it is dropped with the
// last of them.
type line struct {
	turn  chan struct{}
	users int
}

// Wait waits for the turn at the object of this name, and returns what gives
// the turn back, to be called once. Its error is the cause of ctx's end.
func (t *Turns) Wait(ctx context.Context, name string) (done func(), err error) {
	l := t.join(name)
	select {
	case l.turn <- struct{}{}:
		return func() { <-l.turn; t.leave(name, l) }, nil
	case <-ctx.Done():
		t.leave(name, l)
		return nil, context.Cause(ctx)
	}
}

func (t *Turns) join(name string) *line {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lines == nil {
		t.lines = map[string]*line{}
	}
	l := t.lines[name]
	if l == nil {
		l = &line{turn: make(chan struct{}, 1)}
		t.lines[name] = l
	}
	l.users++
	return l
}

func (t *Turns) leave(name string, l *line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(t.lines, name)
	}
}
