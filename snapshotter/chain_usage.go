package snapshotter

import "context"

// ChainUsage is what a snapshot takes on disk, by itself and with all those
// below it, in bytes.
func (s *Set) ChainUsage(ctx context.Context, key string) (own, all int64, err error) {
	for at := key; at != ""; {
		usage, err := s.Usage(ctx, at)
		if err != nil {
			return 0, 0, err
		}
		if at == key {
			own = usage.Size
		}
		all += usage.Size
		info, err := s.Stat(ctx, at)
		if err != nil {
			return 0, 0, err
		}
		at = info.Parent
	}
	return own, all, nil
}
