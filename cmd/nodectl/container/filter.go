package container

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/reference"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
)

// states are the values of the status filter, as docker's.
var states = []string{"created", "restarting", "running", "removing", "paused", "exited", "dead"}

// matcher is the filters of ps, checked and ready.
type matcher struct {
	filters       command.Filters
	names         []*regexp.Regexp
	exited        []int32
	before, since time.Time
}

// newMatcher checks the values of filters; those that name a container are
// looked up among all.
func newMatcher(all []*nodev1.Container, filters command.Filters) (*matcher, error) {
	m := &matcher{filters: filters}
	for _, value := range filters["status"] {
		if !slices.Contains(states, value) {
			return nil, fmt.Errorf("invalid filter 'status=%s'", value)
		}
	}
	for _, value := range filters["name"] {
		pattern, err := regexp.Compile(value)
		if err != nil {
			return nil, fmt.Errorf("invalid filter 'name=%s'", value)
		}
		m.names = append(m.names, pattern)
	}
	for _, value := range filters["exited"] {
		code, err := strconv.ParseInt(value, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("invalid filter 'exited=%s'", value)
		}
		m.exited = append(m.exited, int32(code))
	}
	for name, bound := range map[string]*time.Time{"before": &m.before, "since": &m.since} {
		for _, value := range filters[name] {
			c := lookUp(all, value)
			if c == nil {
				return nil, fmt.Errorf("No such container: %s", value)
			}
			*bound = c.GetCreatedAt().AsTime()
		}
	}
	return m, nil
}

// lookUp finds a container by name or by the begin of its ID.
func lookUp(all []*nodev1.Container, name string) *nodev1.Container {
	for _, c := range all {
		if c.GetName() == strings.TrimPrefix(name, "/") || (name != "" && strings.HasPrefix(c.GetId(), name)) {
			return c
		}
	}
	return nil
}

// all says whether a container matches all filters.
func (m *matcher) all(c *nodev1.Container) bool {
	created := c.GetCreatedAt().AsTime()
	return m.filters.Any("id", func(v string) bool { return strings.HasPrefix(c.GetId(), v) }) &&
		(len(m.names) == 0 || slices.ContainsFunc(m.names, func(p *regexp.Regexp) bool {
			return p.MatchString(c.GetName()) || p.MatchString("/"+c.GetName())
		})) &&
		m.filters.Labels(c.GetLabels()) &&
		m.filters.Any("status", func(v string) bool { return c.GetState() == v }) &&
		(len(m.exited) == 0 || (c.GetState() == "exited" && slices.Contains(m.exited, c.GetExitCode()))) &&
		m.filters.Any("ancestor", func(v string) bool { return madeOf(c, v) }) &&
		m.filters.Any("network", func(v string) bool { return c.GetNetworkMode() == v }) &&
		(m.before.IsZero() || created.Before(m.before)) && (m.since.IsZero() || created.After(m.since))
}

// madeOf says whether a container was made of an image.
func madeOf(c *nodev1.Container, image string) bool {
	id := strings.TrimPrefix(c.GetImageId(), "sha256:")
	if prefix := strings.TrimPrefix(image, "sha256:"); prefix != "" && strings.HasPrefix(id, prefix) {
		return true
	}
	wanted, err := reference.ParseDockerRef(image)
	if err != nil {
		return false
	}
	have, err := reference.ParseDockerRef(c.GetImage())
	return err == nil && have.String() == wanted.String()
}

// shortImage is an image's name without what docker leaves out in lists.
func shortImage(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	if _, ok := named.(reference.Digested); ok {
		tagged, ok := named.(reference.Tagged)
		named = reference.TrimNamed(named)
		if ok {
			if with, err := reference.WithTag(named, tagged.Tag()); err == nil {
				named = with
			}
		}
	}
	return reference.FamiliarString(named)
}
