package stream

import (
	"context"

	"github.com/nodeagent/nodeagent/sandbox"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// passSizes passes terminal sizes on until in is closed, ctx is done or release
// is called, which waits for the end; then sizes is closed. Of several sizes
// that nobody took only the last is kept: over WebSocket a size that is not
// taken would hold up the input behind it.
func passSizes(ctx context.Context, in <-chan remotecommand.TerminalSize) (sizes <-chan sandbox.TerminalSize, release func()) {
	ctx, cancel := context.WithCancel(ctx)
	out := make(chan sandbox.TerminalSize, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case size, ok := <-in:
				if !ok {
					return
				}
				select {
				case <-out:
				default:
				}
				// There is room: nobody else sends.
				out <- sandbox.TerminalSize{Width: size.Width, Height: size.Height}
			}
		}
	}()
	return out, func() {
		cancel()
		<-done
	}
}
