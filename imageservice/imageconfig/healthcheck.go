package imageconfig

import (
	"strconv"
	"strings"
	"time"
)

// healthcheck reads HEALTHCHECK [OPTIONS] CMD command, or HEALTHCHECK NONE.
func (ch *changer) healthcheck(text string) error {
	h := &Healthcheck{}
	for strings.HasPrefix(text, "--") {
		option, rest, _ := strings.Cut(text, " ")
		if err := h.option(strings.TrimPrefix(option, "--")); err != nil {
			return err
		}
		text = strings.TrimSpace(rest)
	}
	kind, rest, _ := strings.Cut(text, " ")
	rest = strings.TrimSpace(rest)
	switch strings.ToUpper(kind) {
	case "NONE":
		if rest != "" {
			return wrong("HEALTHCHECK NONE takes no arguments")
		}
		h.Test = []string{"NONE"}
	case "CMD":
		if rest == "" {
			return wrong("Missing command after HEALTHCHECK CMD")
		}
		if list, ok := jsonList(rest); ok {
			h.Test = append([]string{"CMD"}, list...)
		} else {
			h.Test = []string{"CMD-SHELL", rest}
		}
	default:
		return wrong("Unknown type %q in HEALTHCHECK (try CMD)", strings.ToUpper(kind))
	}
	ch.c.Healthcheck = h
	return nil
}

func (h *Healthcheck) option(option string) error {
	name, value, _ := strings.Cut(option, "=")
	into := map[string]*time.Duration{
		"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod, "start-interval": &h.StartInterval,
	}[name]
	if into == nil && name != "retries" {
		return wrong("Unknown flag: %s", name)
	}
	if name == "retries" {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return wrong("--retries must be a number of at least 0, not %q", value)
		}
		h.Retries = n
		return nil
	}
	d, err := time.ParseDuration(value)
	if err != nil || d != 0 && d < time.Millisecond {
		return wrong("Interval %q cannot be less than 1ms", name)
	}
	*into = d
	return nil
}
