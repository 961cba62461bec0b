// Package timing measures parts of an operation for whoever asked for that
// further up, and costs nothing where nobody did.
package timing

import (
	"context"
	"time"
)

// key is that of what is told in a context.
type key struct{}

// With has tell told of all that Of measures under a context. It may be called
// by several goroutines at once.
func With(ctx context.Context, tell func(name string, took time.Duration)) context.Context {
	return context.WithValue(ctx, key{}, tell)
}

// Of begins to measure something; what it returns ends that.
func Of(ctx context.Context, name string) (end func()) {
	tell, ok := ctx.Value(key{}).(func(string, time.Duration))
	if !ok {
		return func() {}
	}
	began := time.Now()
	return func() { tell(name, time.Since(began)) }
}
