// Package undo runs a sequence of named steps, each with what undoes it
// beside it, and undoes them in reverse when one fails.
//
// The undo of a step is run when the step failed too, for it may have failed
// half-way: an Undo must cope with a Do that did nothing, did all, or did
// something in between.
package undo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nodeagent/nodeagent/internal/failpoint"
	"github.com/nodeagent/nodeagent/internal/timing"
)

// DefaultTimeout bounds the undoing of a sequence that sets no bound.
const DefaultTimeout = time.Minute

// Step is one step of a sequence.
type Step struct {
	// Name is a word or two, as it shall stand in an error.
	Name string
	// Do does it.
	Do func(ctx context.Context) error
	// Undo takes it back; nil when there is nothing to take back. Its
	// context is not cancelled with Do's.
	Undo func(ctx context.Context) error
	// Plain leaves the name out of Do's errors, which say enough without it.
	Plain bool
}

// Sequence is a list of steps and how they are run.
type Sequence struct {
	// Name stands before the step's name in the names of failpoints,
	// "<Name>.<step>.before" and "<Name>.<step>.after".
	Name  string
	Steps []Step
	// Stage, when not nil, is told the name of each step as it begins.
	Stage func(name string)
	// Timeout bounds the undoing of all steps together; zero means
	// DefaultTimeout.
	Timeout time.Duration
}

// Run does the steps in order. When one fails, or ctx is done between two,
// what was begun is undone in reverse under a deadline of its own, and the
// error says at which step it was; errors of undoing are joined to it.
// A nil error means that every step is done.
func (s Sequence) Run(ctx context.Context) error {
	for i, step := range s.Steps {
		if err := s.do(ctx, step); err != nil {
			err = step.named(err)
			return errors.Join(err, s.revert(ctx, s.Steps[:i+1]))
		}
	}
	return nil
}

// do runs one step between its failpoints.
func (s Sequence) do(ctx context.Context, step Step) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if s.Stage != nil {
		s.Stage(step.Name)
	}
	if err := failpoint.Inject(ctx, s.Name+"."+step.Name+".before"); err != nil {
		return err
	}
	if err := step.Do(ctx); err != nil {
		return err
	}
	return failpoint.Inject(ctx, s.Name+"."+step.Name+".after")
}

// revert undoes steps under a deadline that ctx's end does not touch.
func (s Sequence) revert(ctx context.Context, steps []Step) error {
	timeout := s.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	if s.Stage != nil {
		s.Stage("undo")
	}
	return undoAll(ctx, steps)
}

// Together makes one step of several that do not depend on one another. They
// are done side by side; the first failure cancels the context of the others,
// and all have ended before the step fails. They are undone one by one, in
// reverse.
func Together(name string, steps ...Step) Step {
	return Step{
		Name:  name,
		Plain: true, // the one that failed is named
		Do: func(ctx context.Context) error {
			ctx, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			errs := make([]error, len(steps))
			var wg sync.WaitGroup
			for i, step := range steps[1:] {
				wg.Go(func() { errs[i+1] = attempt(ctx, step, cancel) })
			}
			errs[0] = attempt(ctx, steps[0], cancel)
			wg.Wait()
			return firstCause(errs)
		},
		Undo: func(ctx context.Context) error {
			return undoAll(ctx, steps)
		},
	}
}

// attempt does a step and cancels its siblings when it fails.
func attempt(ctx context.Context, step Step, cancel context.CancelCauseFunc) error {
	timed := timing.Of(ctx, step.Name)
	err := step.Do(ctx)
	timed()
	if err != nil {
		err = step.named(err)
		cancel(err)
	}
	return err
}

// named puts the step's name before its error.
func (s Step) named(err error) error {
	if s.Plain {
		return err
	}
	return fmt.Errorf("%s: %w", s.Name, err)
}

// firstCause picks the error that is not a mere echo of the cancellation.
func firstCause(errs []error) error {
	var echo error
	for _, err := range errs {
		switch {
		case err == nil:
		case errors.Is(err, context.Canceled):
			echo = err
		default:
			return err
		}
	}
	return echo
}

// undoAll undoes steps in reverse, and goes on past those that fail.
func undoAll(ctx context.Context, steps []Step) error {
	var errs []error
	for _, step := range slices.Backward(steps) {
		if step.Undo == nil {
			continue
		}
		if err := step.Undo(ctx); err != nil {
			errs = append(errs, fmt.Errorf("undo %s: %w", step.Name, err))
		}
	}
	return errors.Join(errs...)
}
