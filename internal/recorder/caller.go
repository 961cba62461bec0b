package recorder

import (
	"context"
	"time"
)

// callerKey is that of the caller in a context.
type callerKey struct{}

// WithCaller notes in a context who asks for what is done under it.
func WithCaller(ctx context.Context, who string) context.Context {
	if who == "" {
		return ctx
	}
	return context.WithValue(ctx, callerKey{}, who)
}

// Caller is who asks for what is done under ctx; "" is the agent itself.
func Caller(ctx context.Context) string {
	who, _ := ctx.Value(callerKey{}).(string)
	return who
}

// stepsKey is that of what is told of steps in a context.
type stepsKey struct{}

// WithSteps has add told of all that Timed measures under a context. It may be
// called by several goroutines at once.
func WithSteps(ctx context.Context, add func(Step)) context.Context {
	return context.WithValue(ctx, stepsKey{}, add)
}

// Timed begins to measure something; what it returns ends that.
func Timed(ctx context.Context, name string) (end func()) {
	add, ok := ctx.Value(stepsKey{}).(func(Step))
	if !ok {
		return func() {}
	}
	began := time.Now()
	return func() { add(Step{Name: name, Took: time.Since(began)}) }
}
