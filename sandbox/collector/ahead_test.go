package collector

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// What was read ahead is not read again; what failed is.
func TestAhead(t *testing.T) {
	c := open(t, Config{Age: time.Hour, Patience: time.Minute})
	var calls atomic.Int64
	want(t, c, "a", counted(&calls), 1)
	failing := func(context.Context, int64, time.Time) (int64, error) { return 0, errors.New("broken") }
	c.Ahead(t.Context(), []Job[int64]{{"a", counted(&calls)}, {"b", counted(&calls)}, {"c", failing}})
	for key, value := range map[string]int64{"a": 1, "b": 2} {
		want(t, c, key, counted(&calls), value)
	}
	want(t, c, "c", counted(&calls), 3)
}

// One that hangs is waited for once, and holds up none of the others.
func TestAheadHangs(t *testing.T) {
	c := open(t, Config{Age: time.Hour, Patience: time.Minute, Wait: 20 * time.Millisecond})
	var calls atomic.Int64
	release := make(chan struct{})
	hang := func(context.Context, int64, time.Time) (int64, error) {
		<-release
		return 9, nil
	}
	c.Ahead(t.Context(), []Job[int64]{{"a", counted(&calls)}, {"b", hang}, {"c", counted(&calls)}})
	want(t, c, "a", counted(&calls), 1)
	want(t, c, "c", counted(&calls), 2)
	if _, err := c.Get(t.Context(), "b", hang); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(release)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.Ahead(ctx, []Job[int64]{{"d", counted(&calls)}})
	c.Close()
	c.Ahead(t.Context(), []Job[int64]{{"e", counted(&calls)}})
}
