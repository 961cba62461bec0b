package netns

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// claimPoll is how often a claim is tried again: flock(2) knows no deadline.
const claimPoll = 5 * time.Millisecond

// Claim waits until nobody else, in this process or another, holds a claim to
// the calling thread's network namespace, and takes it: what is looked up and
// then taken, such as a subnet that is free, is not taken by two. It ends with
// release, or with the process. It is advice, and held against nobody who does
// not ask.
func Claim(ctx context.Context) (release func(), err error) {
	n, err := Current()
	if err != nil {
		return nil, err
	}
	ticker := time.NewTicker(claimPoll)
	defer ticker.Stop()
	for {
		err := unix.Flock(n.FD(), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			// Closing the only descriptor ends it.
			return func() { n.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			n.Close()
			return nil, fmt.Errorf("claim the network namespace: %w", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			n.Close()
			return nil, fmt.Errorf("claim the network namespace: another process holds it: %w", context.Cause(ctx))
		}
	}
}
