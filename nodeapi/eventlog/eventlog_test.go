package eventlog

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

var errEnough = errors.New("enough")

func TestPastThenPresent(t *testing.T) {
	var l Log
	start := time.Now()
	for i := range 3 {
		l.Add(Event{Action: fmt.Sprint(i), At: start.Add(time.Duration(i) * time.Second)})
	}
	var got []string
	err := l.Watch(t.Context(), start.Add(time.Second), time.Time{}, func(e Event) error {
		got = append(got, e.Action)
		switch e.Action {
		case "2":
			l.Add(Event{Action: "new", At: start.Add(time.Minute)})
		case "new":
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) || fmt.Sprint(got) != "[1 2 new]" {
		t.Errorf("got %v %v", got, err)
	}
}

func TestOnlyTheLastAreKept(t *testing.T) {
	var l Log
	start := time.Now()
	for i := range 3*capacity + 7 {
		l.Add(Event{Action: fmt.Sprint(i), At: start})
	}
	var got []string
	err := l.Watch(t.Context(), start, time.Now(), func(e Event) error {
		got = append(got, e.Action)
		return nil
	})
	if err != nil || len(got) < capacity*3/4 || len(got) > capacity || got[len(got)-1] != fmt.Sprint(3*capacity+6) {
		t.Errorf("%d events, %v", len(got), err)
	}
}

func TestWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Log
		none := func(e Event) error { return fmt.Errorf("got %v", e) }
		begun := time.Now()
		if err := l.Watch(t.Context(), time.Time{}, begun.Add(time.Hour), none); err != nil || time.Since(begun) != time.Hour {
			t.Errorf("until: %v after %s", err, time.Since(begun))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Watch(ctx, time.Time{}, time.Time{}, none); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}
