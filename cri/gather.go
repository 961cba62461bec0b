package cri

import (
	"context"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
)

// readers is how many statistics are read at once for one list. Readings
// are system calls on cgroup files, which gain nothing from more.
const readers = 4

// gather reads one thing of each item, in the items' order. What went away
// meanwhile is left out. What cannot be read is left out too, with one line in
// the log for all; when nothing can be read that is the answer.
func gather[T, R any](ctx context.Context, log *logrus.Entry, items []T, read func(context.Context, *T) (*R, error)) ([]*R, error) {
	var group errgroup.Group
	group.SetLimit(readers)
	results, failures := make([]*R, len(items)), make([]error, len(items))
	for i := range items {
		group.Go(func() error {
			// One failure must not end the others, so none is returned.
			if failures[i] = ctx.Err(); failures[i] == nil {
				results[i], failures[i] = read(ctx, &items[i])
			}
			return nil
		})
	}
	_ = group.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	failures = slices.DeleteFunc(failures, func(err error) bool { return err == nil || errdefs.IsNotFound(err) })
	results = slices.DeleteFunc(results, func(r *R) bool { return r == nil })
	if len(failures) == 0 {
		return results, nil
	}
	if len(results) == 0 {
		return nil, failures[0]
	}
	log.WithError(failures[0]).WithField("failed", len(failures)).Warn("some statistics cannot be read")
	return results, nil
}
