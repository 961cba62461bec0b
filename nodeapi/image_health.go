package nodeapi

import (
	"encoding/json"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// imageHealth reads the health check of an image's configuration, which
// docker writes and the OCI's format has no field for; nil when there is none
// or it makes no sense.
func imageHealth(config []byte) *nodev1.HealthCheck {
	var image struct {
		Config struct {
			Healthcheck *struct {
				Test                                          []string
				Interval, Timeout, StartPeriod, StartInterval time.Duration
				Retries                                       int32
			}
		} `json:"config"`
	}
	if json.Unmarshal(config, &image) != nil || image.Config.Healthcheck == nil {
		return nil
	}
	h := image.Config.Healthcheck
	duration := func(d time.Duration) *durationpb.Duration {
		if d == 0 {
			return nil
		}
		return durationpb.New(d)
	}
	out := &nodev1.HealthCheck{
		Test: h.Test, Interval: duration(h.Interval), Timeout: duration(h.Timeout),
		StartPeriod: duration(h.StartPeriod), StartInterval: duration(h.StartInterval), Retries: h.Retries,
	}
	if len(h.Test) == 0 || validateHealth(&nodev1.ContainerSpec{Health: out}) != nil {
		return nil
	}
	return out
}
