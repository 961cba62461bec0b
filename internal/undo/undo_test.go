package undo

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/nodeagent/nodeagent/internal/failpoint"
)

// trace records what was done.
type trace struct{ events []string }

func (tr *trace) step(name string, err error) Step {
	return Step{
		Name: name,
		Do:   func(context.Context) error { tr.events = append(tr.events, "do "+name); return err },
		Undo: func(ctx context.Context) error {
			tr.events = append(tr.events, "undo "+name)
			return ctx.Err()
		},
	}
}

func TestFailureUndoesInReverse(t *testing.T) {
	boom := errors.New("boom")
	var tr trace
	err := Sequence{Steps: []Step{tr.step("a", nil), tr.step("b", boom), tr.step("c", nil)}}.Run(t.Context())
	if !errors.Is(err, boom) || err.Error() != "b: boom" {
		t.Errorf("error %v", err)
	}
	want := []string{"do a", "do b", "undo b", "undo a"}
	if !slices.Equal(tr.events, want) {
		t.Errorf("got %v, want %v", tr.events, want)
	}
}

func TestCancelUndoesUnderOwnDeadline(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var tr trace
	cancelling := Step{Name: "cancel", Do: func(context.Context) error { cancel(); return nil }}
	err := Sequence{Steps: []Step{tr.step("a", nil), cancelling, tr.step("b", nil)}}.Run(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	// Undo returned no error: its context was not the cancelled one.
	if want := []string{"do a", "undo b", "undo a"}; !slices.Equal(tr.events, want) {
		t.Errorf("got %v, want %v", tr.events, want)
	}
}

func TestTogetherReportsTheCause(t *testing.T) {
	boom := errors.New("boom")
	var undone []string
	waits := Step{
		Name: "waits",
		Do:   func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		Undo: func(context.Context) error { undone = append(undone, "waits"); return nil },
	}
	fails := Step{Name: "fails", Do: func(context.Context) error { return boom }}
	err := Sequence{Steps: []Step{Together("both", waits, fails)}}.Run(t.Context())
	if !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
	if !slices.Equal(undone, []string{"waits"}) {
		t.Errorf("undone %v", undone)
	}
}

func TestFailpointsAroundSteps(t *testing.T) {
	for _, place := range []string{"seq.b.before", "seq.b.after"} {
		disable, err := failpoint.Enable(place + "=error:1")
		if err != nil {
			t.Fatal(err)
		}
		var tr trace
		seq := Sequence{Name: "seq", Steps: []Step{tr.step("a", nil), tr.step("b", nil)}}
		if err := seq.Run(t.Context()); !errors.Is(err, failpoint.ErrInjected) {
			t.Errorf("%s: error %v", place, err)
		}
		if err := seq.Run(t.Context()); err != nil {
			t.Errorf("%s: second run: %v", place, err)
		}
		disable()
	}
}
