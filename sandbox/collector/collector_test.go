package collector

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// counted is a Reader that counts its calls and gives that number.
func counted(n *atomic.Int64) Reader[int64] {
	return func(context.Context, int64, time.Time) (int64, error) { return n.Add(1), nil }
}

func open(t *testing.T, cfg Config) *Collector[int64] {
	t.Helper()
	c := New[int64](cfg)
	t.Cleanup(c.Close)
	return c
}

func want(t *testing.T, c *Collector[int64], key string, read Reader[int64], value int64) {
	t.Helper()
	if got, err := c.Get(t.Context(), key, read); got != value || err != nil {
		t.Errorf("%s is %d, %v; want %d", key, got, err, value)
	}
}

func TestReadingsAreShared(t *testing.T) {
	c := open(t, Config{Age: time.Hour, Patience: time.Minute})
	var calls atomic.Int64
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { want(t, c, "a", counted(&calls), 1) })
	}
	all.Wait()
	want(t, c, "b", counted(&calls), 2)
	c.Drop("a")
	want(t, c, "a", counted(&calls), 3)
	c.Keep(map[string]bool{"b": true})
	want(t, c, "a", counted(&calls), 4)
	want(t, c, "b", counted(&calls), 2)
}

func TestOldReadingsAreMadeAgain(t *testing.T) {
	c := open(t, Config{Age: time.Nanosecond, Patience: time.Minute})
	sum := func(_ context.Context, before int64, at time.Time) (int64, error) {
		if (before == 0) != at.IsZero() {
			t.Errorf("%d at %v", before, at)
		}
		return before + 5, nil
	}
	want(t, c, "a", sum, 5)
	want(t, c, "a", sum, 10)
	_, err := c.Get(t.Context(), "a", func(context.Context, int64, time.Time) (int64, error) { return 0, errors.New("broken") })
	if err == nil || err.Error() != "broken" {
		t.Error(err)
	}
	want(t, c, "a", sum, 15)
}

// One reading that hangs costs who asks for it a moment, once; others nothing.
func TestOneHangs(t *testing.T) {
	c := open(t, Config{Age: time.Nanosecond, Patience: 50 * time.Millisecond, Keep: time.Hour, Readers: 1})
	var calls, hanging atomic.Int64
	want(t, c, "hung", counted(&calls), 1)
	end := make(chan struct{})
	hang := func(context.Context, int64, time.Time) (int64, error) {
		hanging.Add(1)
		<-end
		return 7, nil
	}
	defer close(end)
	for range 20 {
		want(t, c, "hung", hang, 1)
	}
	if n := hanging.Load(); n != 1 {
		t.Errorf("%d readings under way", n)
	}
	if _, err := c.Get(t.Context(), "never read", hang); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	want(t, c, "other", counted(&calls), 2)
}

// What is costly is read in the background, and comes out when it is there.
func TestBehind(t *testing.T) {
	c := open(t, Config{Age: time.Nanosecond, Patience: time.Minute, Behind: true})
	var calls atomic.Int64
	want(t, c, "a", counted(&calls), 1)
	began, end := make(chan struct{}), make(chan struct{})
	want(t, c, "a", func(context.Context, int64, time.Time) (int64, error) {
		close(began)
		<-end
		return 7, nil
	}, 1)
	<-began
	want(t, c, "a", counted(&calls), 1)
	c.mu.Lock()
	done := c.entries["a"].now.done
	c.mu.Unlock()
	close(end)
	<-done
	want(t, c, "a", counted(&calls), 7)
}

// A reading is followed by a rest that fits what it took.
func TestRest(t *testing.T) {
	c := open(t, Config{Age: time.Nanosecond, Patience: time.Minute, Rest: 1 << 30})
	var calls atomic.Int64
	slow := func(context.Context, int64, time.Time) (int64, error) {
		<-time.After(10 * time.Millisecond)
		return calls.Add(1), nil
	}
	want(t, c, "a", slow, 1)
	want(t, c, "a", slow, 1)
}

func TestCloseEndsReadings(t *testing.T) {
	c := New[int64](Config{Patience: time.Minute})
	began, result := make(chan struct{}), make(chan error)
	go func() {
		_, err := c.Get(context.Background(), "a", func(ctx context.Context, _ int64, _ time.Time) (int64, error) {
			close(began)
			<-ctx.Done()
			return 0, ctx.Err()
		})
		result <- err
	}()
	<-began
	c.Close()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := c.Get(t.Context(), "a", nil); err == nil {
		t.Error("a reading after the end")
	}
}
