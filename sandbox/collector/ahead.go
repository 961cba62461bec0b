package collector

import (
	"context"
	"sync/atomic"
	"time"
)

// Job is a key and how it is read.
type Job[V any] struct {
	Key  string
	Read Reader[V]
}

// Ahead makes those readings that are due of keys that will be asked for in a
// moment, one after the other: with many, waking a goroutine for each would
// take longer than reading. It returns when all are made, when ctx is done, or
// when one takes longer than Wait; what is left is read when it is asked for.
func (c *Collector[V]) Ahead(ctx context.Context, jobs []Job[V]) {
	var made atomic.Int64
	var left atomic.Bool
	defer left.Store(true)
	done := make(chan struct{})
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.wg.Go(func() {
		defer close(done)
		for _, job := range jobs {
			if left.Load() {
				return
			}
			c.ifDue(job)
			made.Add(1)
		}
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
