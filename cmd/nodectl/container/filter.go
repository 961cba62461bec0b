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
	ports         map[string][]portRange
	before, since time.Time
	// tasks says that containers of a swarm's services are wanted, which there are none of.
	tasks bool
}

// newMatcher checks the values of filters; those that name a container are
// looked up among all.
func newMatcher(all []*nodev1.Container, filters command.Filters) (*matcher, error) {
	m := &matcher{filters: filters}
	var err error
	if m.tasks, _, err = filters.Bool("is-task"); err != nil {
		return nil, err
	}
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
	for _, value := range filters["health"] {
		if !slices.Contains([]string{"starting", "healthy", "unhealthy", "none"}, value) {
			return nil, fmt.Errorf("invalid filter 'health=%s'", value)
		}
	}
	for _, name := range []string{"publish", "expose"} {
		for _, value := range filters[name] {
			r, err := parsePortRange(value)
			if err != nil {
				return nil, fmt.Errorf("invalid filter '%s=%s'", name, value)
			}
			if m.ports == nil {
				m.ports = map[string][]portRange{}
			}
			m.ports[name] = append(m.ports[name], r)
		}
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
	return !m.tasks && m.filters.Any("id", func(v string) bool { return strings.HasPrefix(c.GetId(), v) }) &&
		(len(m.names) == 0 || slices.ContainsFunc(m.names, func(p *regexp.Regexp) bool {
			return p.MatchString(c.GetName()) || p.MatchString("/"+c.GetName())
		})) &&
		m.filters.Labels(c.GetLabels()) &&
		m.filters.Any("status", func(v string) bool { return c.GetState() == v }) &&
		(len(m.exited) == 0 || (c.GetState() == "exited" && slices.Contains(m.exited, c.GetExitCode()))) &&
		m.filters.Any("ancestor", func(v string) bool { return madeOf(c, v) }) &&
		m.filters.Any("volume", func(v string) bool { return hasVolume(c, v) }) &&
		m.filters.Any("health", func(v string) bool { return c.GetHealth() == v || (v == "none" && c.GetHealth() == "") }) &&
		m.hasPorts("publish", c) && m.hasPorts("expose", c) &&
		m.filters.Any("network", func(v string) bool { return onNetwork(c, v) }) &&
		(m.before.IsZero() || created.Before(m.before)) && (m.since.IsZero() || created.After(m.since))
}

// portRange are ports of one protocol.
type portRange struct {
	first, last uint64
	protocol    string
}

// parsePortRange reads PORT[-PORT][/PROTOCOL].
func parsePortRange(text string) (r portRange, err error) {
	ports, protocol, ok := strings.Cut(text, "/")
	if r.protocol = "tcp"; ok {
		r.protocol = protocol
	}
	first, last, ranged := strings.Cut(ports, "-")
	if r.first, err = strconv.ParseUint(first, 10, 16); err != nil {
		return r, err
	}
	if r.last = r.first; ranged {
		r.last, err = strconv.ParseUint(last, 10, 16)
	}
	return r, err
}

// hasPorts says whether a container has one of the ports a filter asks for:
// published ones for "publish", all for "expose".
func (m *matcher) hasPorts(name string, c *nodev1.Container) bool {
	if len(m.ports[name]) == 0 {
		return true
	}
	for _, r := range m.ports[name] {
		for _, p := range c.GetPorts() {
			port := uint64(p.GetContainerPort())
			if p.GetProtocol() == r.protocol && port >= r.first && port <= r.last && (name == "expose" || p.GetHostPort() != 0) {
				return true
			}
		}
	}
	return false
}

// hasVolume says whether a volume or a path is mounted.
func hasVolume(c *nodev1.Container, want string) bool {
	for _, m := range c.GetMounts() {
		if m.GetSource() == want || m.GetTarget() == want {
			return true
		}
	}
	return false
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

// shortImages remembers what shortImage made: in a list many containers have
// the same image, and a reference is slow to parse.
var shortImages = map[string]string{}

// shortImage is an image's name without what docker leaves out in lists. It is
// for one goroutine.
func shortImage(name string) string {
	short, ok := shortImages[name]
	if !ok {
		short = familiar(name)
		shortImages[name] = short
	}
	return short
}

func familiar(name string) string {
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
