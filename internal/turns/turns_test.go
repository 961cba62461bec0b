package turns

import (
	"context"
	"errors"
	"sync"
	"testing"
)

func TestOneAtATime(t *testing.T) {
	var turns Turns
	var all sync.WaitGroup
	inside, most := map[string]int{}, 0
	var mu sync.Mutex
	change := func(name string, by int) {
		mu.Lock()
		defer mu.Unlock()
		inside[name] += by
		most = max(most, inside[name])
	}
	for i := range 200 {
		all.Go(func() {
			name := string(rune('a' + i%3))
			done, err := turns.Wait(t.Context(), name)
			if err != nil {
				t.Error(err)
				return
			}
			change(name, 1)
			change(name, -1)
			done()
		})
	}
	all.Wait()
	if most != 1 || len(turns.lines) != 0 {
		t.Errorf("%d at once; %d lines are left", most, len(turns.lines))
	}
}

func TestWaitEnds(t *testing.T) {
	var turns Turns
	done, err := turns.Wait(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := turns.Wait(ctx, "a"); !errors.Is(err, why) {
		t.Errorf("a wait that ends: %v", err)
	}
	other, err := turns.Wait(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	other()
	done()
	if len(turns.lines) != 0 {
		t.Errorf("%d lines are left", len(turns.lines))
	}
}
