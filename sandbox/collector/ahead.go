package collector

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Job is a key and how it is read.
type Job[V any] struct {
	Key  string
	Read Reader[V]
}

// A further goroutine makes readings for each perWorker of them, up to
// maxWorkers.
const perWorker, maxWorkers = 16, 4

// Ahead makes those readings that are due of keys that will be asked for in a
// moment, in few goroutines: waking one for each reading would take longer than
// reading. It returns when all are made, when ctx is done, or when none ends
// for as long as Wait; what is left is read when it is asked for.
func (c *Collector[V]) Ahead(ctx context.Context, jobs []Job[V]) {
	var next, made atomic.Int64
	var left atomic.Bool
	defer left.Store(true)
	work := func() {
		for !left.Load() {
			i := int(next.Add(1)) - 1
			if i >= len(jobs) {
				return
			}
			c.ifDue(jobs[i])
			made.Add(1)
		}
	}
	done := make(chan struct{})
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	var workers sync.WaitGroup
	for range min(1+len(jobs)/perWorker, maxWorkers, runtime.GOMAXPROCS(0)) {
		workers.Add(1)
		c.wg.Go(func() {
			defer workers.Done()
			work()
		})
	}
	c.wg.Go(func() {
		workers.Wait()
		close(done)
	})
	c.mu.Unlock()
	tick := time.NewTicker(c.cfg.Wait/4 + 1)
	defer tick.Stop()
	for before, since := int64(0), time.Now(); ; {
		select {
		case <-done:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
			if now := made.Load(); now != before {
				before, since = now, time.Now()
			} else if time.Since(since) >= c.cfg.Wait {
				return
			}
		}
	}
}

// ifDue makes a reading, unless there is a fresh one, or one is under way.
func (c *Collector[V]) ifDue(job Job[V]) {
	c.mu.Lock()
	e, began := c.entry(job.Key), time.Now()
	if c.closed || e.now != nil || began.Before(e.fresh) {
		c.mu.Unlock()
		return
	}
	perform := c.claim(e, job.Read, began)
	c.mu.Unlock()
	perform()
}
