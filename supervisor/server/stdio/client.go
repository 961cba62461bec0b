package stdio

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// queueLimit is how many bytes may wait for one output of a client.
	queueLimit = 1 << 20
	// releasedLimit is the same once the container's init ended and the
	// rest is only what lies in pipes and what is left behind writes.
	releasedLimit = 64 << 20
	// stallPatience is how long the container waits for a client that is
	// behind by queueLimit and takes nothing.
	stallPatience = 5 * time.Second
	// clientPatience is how long one write to a client may take once the
	// container ended.
	clientPatience = 30 * time.Second
)

// client is one attached client.
type client struct {
	stdin *os.File
	// outs are standard output and standard error; either may be nil.
	outs [2]*queue
	// endsInput says that the container's input ends with this client's.
	endsInput bool
	// gone tells the IO to forget the client.
	gone func()

	over sync.Once
}

func (c *client) output(name string) *queue {
	if name == stderrName {
		return c.outs[1]
	}
	return c.outs[0]
}

// start begins to write to the client and to watch for its going. Each output
// has one goroutine for either; both end with the queue.
func (c *client) start() {
	for _, q := range c.outs {
		if q == nil {
			continue
		}
		go func() {
			q.write()
			c.outputEnded()
		}()
		go q.watch()
	}
}

// outputEnded drops the client once one of its outputs broke: it is gone, or
// was cut off.
func (c *client) outputEnded() {
	c.over.Do(func() {
		c.gone()
		for _, q := range c.outs {
			q.finish()
		}
		if c.stdin != nil {
			c.stdin.Close()
		}
	})
}

// inputEnded drops a client that gave input only.
func (c *client) inputEnded() {
	c.stdin.Close()
	if c.outs[0] == nil && c.outs[1] == nil {
		c.outputEnded()
	}
}

// release lets the container's side never wait for this client again.
func (c *client) release() {
	for _, q := range c.outs {
		q.release()
	}
}

// finish ends the client after what is queued was written.
func (c *client) finish() {
	for _, q := range c.outs {
		q.finish()
	}
	if c.outs[0] == nil && c.outs[1] == nil {
		c.outputEnded()
	}
}

// queue is what waits to be written to one output of a client. A nil queue
// swallows everything.
type queue struct {
	file *os.File

	mu     sync.Mutex // guards the fields below
	change *sync.Cond
	chunks [][]byte
	size   int
	limit  int
	// wait: the container waits for this client, however long.
	wait bool
	// progress is when the client last took something, or had nothing to take.
	progress time.Time
	// ending: write what is queued, then end. broken: end now.
	ending, broken bool
}

func newQueue(f *os.File, wait bool) *queue {
	if f == nil {
		return nil
	}
	q := &queue{file: f, wait: wait, limit: queueLimit}
	q.change = sync.NewCond(&q.mu)
	return q
}

// add queues a copy of data. When there is no room the client is waited for, which
// is cut off once it has taken nothing for a while, unless it is one with wait.
func (q *queue) add(data []byte) {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.full(len(data)) {
		q.waitForRoom(len(data))
	}
	if q.broken || q.ending {
		return
	}
	if q.size == 0 {
		q.progress = time.Now()
	}
	q.chunks = append(q.chunks, append([]byte(nil), data...))
	q.size += len(data)
	q.change.Broadcast()
}

// full says that there is no room for n bytes, and may be some later.
func (q *queue) full(n int) bool {
	return q.size > 0 && q.size+n > q.limit && !q.broken && !q.ending
}

// waitForRoom waits until there is room for n bytes, or breaks the queue.
func (q *queue) waitForRoom(n int) {
	for q.full(n) {
		if q.wait {
			q.change.Wait()
			continue
		}
		left := stallPatience - time.Since(q.progress)
		if left <= 0 {
			q.breakLocked()
			return
		}
		timer := time.AfterFunc(left, func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.change.Broadcast()
		})
		q.change.Wait()
		timer.Stop()
	}
}

// write writes what is queued until the queue ends, and closes the file.
func (q *queue) write() {
	defer q.file.Close()
	for {
		chunk, ok := q.next()
		if !ok {
			return
		}
		if _, err := q.file.Write(chunk); err != nil {
			q.mu.Lock()
			q.breakLocked()
			q.mu.Unlock()
			return
		}
		q.mu.Lock()
		q.size -= len(chunk)
		q.progress = time.Now()
		if q.ending && !q.wait {
			q.file.SetWriteDeadline(time.Now().Add(clientPatience))
		}
		q.change.Broadcast()
		q.mu.Unlock()
	}
}

// next waits for a chunk; false means that the queue ended.
func (q *queue) next() ([]byte, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.chunks) == 0 && !q.ending && !q.broken {
		q.change.Wait()
	}
	if q.broken || len(q.chunks) == 0 {
		return nil, false
	}
	chunk := q.chunks[0]
	q.chunks[0] = nil
	q.chunks = q.chunks[1:]
	return chunk, true
}

// watch breaks the queue when the client closes its end, which would else be
// noticed only with the next output.
func (q *queue) watch() {
	raw, err := q.file.SyscallConn()
	if err != nil {
		return
	}
	gone := false
	check := func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(fds, 0)
		gone = err == nil && n > 0
		return gone
	}
	// The wait ends with an error when the file is closed, when it is none
	// that can be waited for, and when it is a full pipe nobody reads.
	if err := raw.Read(check); err != nil {
		_ = raw.Control(func(fd uintptr) { check(fd) })
	}
	if gone {
		q.mu.Lock()
		q.breakLocked()
		q.mu.Unlock()
	}
}

func (q *queue) release() {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limit = releasedLimit
	q.change.Broadcast()
}

func (q *queue) finish() {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ending = true
	if !q.wait {
		q.file.SetWriteDeadline(time.Now().Add(clientPatience))
	}
	q.change.Broadcast()
}

func (q *queue) breakLocked() {
	if q.broken {
		return
	}
	q.broken = true
	q.chunks = nil
	// Ends a write that waits for the client.
	q.file.SetWriteDeadline(time.Unix(1, 0))
	q.change.Broadcast()
}
