package server

import (
	"runtime/debug"
	"sync"
	"time"
)

// idleTime is how long nothing must have happened before memory is given back
// to the system. A burst of starts leaves some megabytes that the next one
// can have again.
const idleTime = 3 * time.Second

// trimmer gives memory back once the supervisor has been idle for a while.
type trimmer struct {
	drop func()

	mu      sync.Mutex // guards the fields below
	timer   *time.Timer
	stopped bool
}

// newTrimmer returns a trimmer that calls drop, which forgets what can be
// loaded again, before it frees memory.
func newTrimmer(drop func()) *trimmer {
	return &trimmer{drop: drop}
}

// touch says that something happens now.
func (t *trimmer) touch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	if t.timer == nil {
		t.timer = time.AfterFunc(idleTime, func() {
			t.drop()
			debug.FreeOSMemory()
		})
		return
	}
	t.timer.Reset(idleTime)
}

func (t *trimmer) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	if t.timer != nil {
		t.timer.Stop()
	}
}
