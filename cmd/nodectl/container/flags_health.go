package container

import (
	"errors"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"
)

// healthFlags are the flags of a health check.
type healthFlags struct {
	command                                       string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int32
	none                                          bool
}

func (f *healthFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.command, "health-cmd", "", "Command to run to check health")
	flags.DurationVar(&f.interval, "health-interval", 0, "Time between running the check (ms|s|m|h) (default 0s)")
	flags.DurationVar(&f.timeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)")
	flags.DurationVar(&f.startPeriod, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)")
	flags.DurationVar(&f.startInterval, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h) (default 0s)")
	flags.Int32Var(&f.retries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	flags.BoolVar(&f.none, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}

// check makes a health check of the flags; nil leaves the image's alone.
func (f *healthFlags) check() (*nodev1.HealthCheck, error) {
	given := f.command != "" || f.interval != 0 || f.timeout != 0 || f.startPeriod != 0 || f.startInterval != 0 || f.retries != 0
	switch {
	case f.none && given:
		return nil, errors.New("--no-healthcheck conflicts with --health-* options")
	case f.none:
		return &nodev1.HealthCheck{Test: []string{"NONE"}}, nil
	case !given:
		return nil, nil
	}
	h := &nodev1.HealthCheck{Retries: f.retries}
	if f.command != "" {
		h.Test = []string{"CMD-SHELL", f.command}
	}
	for _, d := range []struct {
		from time.Duration
		name string
		to   **durationpb.Duration
	}{
		{f.interval, "--health-interval", &h.Interval}, {f.timeout, "--health-timeout", &h.Timeout},
		{f.startPeriod, "--health-start-period", &h.StartPeriod}, {f.startInterval, "--health-start-interval", &h.StartInterval},
	} {
		switch {
		case d.from < 0:
			return nil, errors.New(d.name + " cannot be negative")
		case d.from > 0:
			*d.to = durationpb.New(d.from)
		}
	}
	if f.retries < 0 {
		return nil, errors.New("--health-retries cannot be negative")
	}
	return h, nil
}
