package recorder

import "context"

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
