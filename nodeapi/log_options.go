package nodeapi

import (
	"cmp"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// The drivers of logs. All but none are the one log the agent has.
const (
	logNone     = "none"
	logJSONFile = "json-file"
	logLocal    = "local"
)

// validateLog refuses logs that cannot be had.
func validateLog(spec *nodev1.ContainerSpec) error {
	log := spec.GetLog()
	switch log.GetDriver() {
	case "", logNone, logJSONFile, logLocal:
	default:
		return failf(errdefs.ErrInvalidArgument, "logger: no log driver named '%s' is registered", log.GetDriver())
	}
	for name, value := range log.GetOptions() {
		switch name {
		case "max-size":
			if n, err := units.FromHumanSize(value); err != nil || n <= 0 {
				return failf(errdefs.ErrInvalidArgument, "invalid value for max-size: %s", value)
			}
		case "max-file":
			if n, err := strconv.Atoi(value); err != nil || n < 1 {
				return failf(errdefs.ErrInvalidArgument, "invalid value for max-file: %s", value)
			}
		case "mode", "max-buffer-size", "labels", "labels-regex", "env", "env-regex", "tag", "compress":
		default:
			return failf(errdefs.ErrInvalidArgument, "unknown log opt '%s' for %s log driver", name, cmp.Or(log.GetDriver(), "json-file"))
		}
	}
	return nil
}
