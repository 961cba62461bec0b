package nodeapi

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/protobuf/proto"
)

// Links are docker's legacy ones: on the node's own network, which has no names,
// a container knows others by lines in its hosts file and by variables. On
// people's networks a link is a name that their server answers.

// planLinks refuses links that cannot be, and writes those that can as ID:ALIAS.
func (s *Server) planLinks(spec *nodev1.ContainerSpec) error {
	if len(spec.GetLinks()) > 0 && spec.GetNetwork().GetMode() == networkHost {
		return noLinks("host")
	}
	for i, link := range spec.GetLinks() {
		name, alias, ok := strings.Cut(link, ":")
		if name == "" || ok && alias == "" || strings.Contains(alias, ":") {
			return failf(errdefs.ErrInvalidArgument, "bad format for links: %s", link)
		}
		c, err := s.find(name)
		if err != nil {
			return failf(errdefs.ErrInvalidArgument, "could not get container for %s: %v", name, err)
		}
		if alias == "" {
			alias = strings.TrimPrefix(name, "/")
		}
		if !aliasPattern.MatchString(path.Base(alias)) {
			return failf(errdefs.ErrInvalidArgument, "bad format for links: %s", link)
		}
		spec.Links[i] = c.ID + ":" + path.Base(alias)
	}
	return nil
}

// noLinks refuses links on a network that has none.
func noLinks(kind string) error {
	return failf(errdefs.ErrInvalidArgument,
		"conflicting options: %s type networking can't be used with links. This would result in undefined behavior", kind)
}

// aliasOf is the alias of a link.
func aliasOf(link string) string {
	name, alias, ok := strings.Cut(link, ":")
	if !ok {
		return name
	}
	return alias
}

// linked is the container that a link leads to, and its address on the node's
// network. One that is gone is no link any more.
func (s *Server) linked(link string) (c sandbox.Container, address string, ok bool) {
	id, _, _ := strings.Cut(link, ":")
	c, err := s.find(id)
	if err != nil {
		return c, "", false
	}
	pod, err := s.sandboxes.Pod(c.PodID)
	list, _, onNode := s.networks.Endpoints(c.PodID)
	if err == nil && (onNode || len(list) == 0) && pod.Network != nil && len(pod.Network.Addresses) > 0 {
		address = pod.Network.Addresses[0].Addr().String()
	}
	return c, address, true
}

// withLinks puts the lines of links into hosts, in place of those that were
// there of them and of links that are gone.
func (s *Server) withLinks(hosts []byte, links, gone []string) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(hosts) {
		if !slices.ContainsFunc(slices.Concat(links, gone), func(link string) bool { return isLinkLine(string(line), link) }) {
			b.Write(line)
		}
	}
	for _, link := range links {
		if c, address, ok := s.linked(link); ok && address != "" {
			fmt.Fprintf(&b, "%s\t%s %s %s\n", address, aliasOf(link), c.ID[:shortID], c.Config.GetMetadata().GetName())
		}
	}
	return b.Bytes()
}

// isLinkLine says whether a line of a hosts file is of a link.
func isLinkLine(line, link string) bool {
	fields := strings.Fields(line)
	return len(fields) == 4 && fields[1] == aliasOf(link) && (strings.HasPrefix(link, fields[2]) || strings.HasPrefix(link, fields[3]+":"))
}

// checkLinks refuses to start a container that is linked to one that does not
// run, and brings the lines of its links, and of those that lead to it, in order.
func (s *Server) checkLinks(c sandbox.Container, pod sandbox.Pod, spec *nodev1.ContainerSpec) error {
	if spec == nil || s.onPeople(pod) {
		return nil
	}
	for _, link := range spec.GetLinks() {
		to, address, ok := s.linked(link)
		if ok && running(to) && address == "" {
			return failf(errdefs.ErrFailedPrecondition, "Cannot link to /%s, as it does not belong to the default network", to.Config.GetMetadata().GetName())
		}
		if ok && !running(to) {
			return failf(errdefs.ErrFailedPrecondition, "Cannot link to a non running container: /%s AS /%s/%s",
				to.Config.GetMetadata().GetName(), c.Config.GetMetadata().GetName(), aliasOf(link))
		}
	}
	for _, other := range s.sandboxes.Pods() {
		links := s.spec(other).GetLinks()
		concerned := other.ID == pod.ID || slices.ContainsFunc(links, func(l string) bool { return strings.HasPrefix(l, c.ID+":") })
		if len(links) == 0 || !concerned || s.onPeople(other) {
			continue
		}
		if err := s.rewriteLinks(other, links, nil); err != nil {
			return err
		}
	}
	return nil
}

// rewriteLinks writes the lines of links into a container's hosts file, where
// they are not as they are to be.
func (s *Server) rewriteLinks(pod sandbox.Pod, links, gone []string) error {
	file := s.files.path(podKey(pod), hostsName)
	before, err := readHosts(file)
	if err != nil {
		return err
	}
	if after := s.withLinks(before, links, gone); !bytes.Equal(before, after) {
		return overwrite(file, after)
	}
	return nil
}

// unlink removes a link, which is named CONTAINER/ALIAS.
func (s *Server) unlink(name string) error {
	parent, alias := path.Split(strings.TrimPrefix(name, "/"))
	parent = strings.TrimSuffix(parent, "/")
	if parent == "" {
		if _, err := s.find(name); err != nil {
			return err
		}
		return failf(errdefs.ErrInvalidArgument, "Conflict, cannot remove the default link name of the container")
	}
	c, err := s.find(parent)
	if err != nil {
		return failf(errdefs.ErrNotFound, "Cannot get parent /%s for name /%s/%s", parent, parent, alias)
	}
	pod, err := s.sandboxes.Pod(c.PodID)
	if err != nil {
		return err
	}
	links := s.spec(pod).GetLinks()
	at := slices.IndexFunc(links, func(l string) bool { return aliasOf(l) == alias })
	if at < 0 || s.onPeople(pod) {
		return failf(errdefs.ErrNotFound, "No such container: %s", name)
	}
	if err := s.changeRun(c, func(r *runRecord) { r.Unlinked = append(slices.Clone(r.Unlinked), alias) }); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.specs, pod.ID)
	s.mu.Unlock()
	return s.rewriteLinks(pod, s.spec(pod).GetLinks(), []string{links[at]})
}

// withLinkNames is a specification as inspect shows it, with names in links.
func (s *Server) withLinkNames(c sandbox.Container, spec *nodev1.ContainerSpec) *nodev1.ContainerSpec {
	pod, err := s.sandboxes.Pod(c.PodID)
	if len(spec.GetLinks()) == 0 || err != nil || s.onPeople(pod) {
		return spec
	}
	spec = proto.CloneOf(spec)
	links := spec.GetLinks()
	spec.Links = nil
	for _, link := range links {
		if to, _, ok := s.linked(link); ok {
			spec.Links = append(spec.Links, fmt.Sprintf("/%s:/%s/%s", to.Config.GetMetadata().GetName(), c.Config.GetMetadata().GetName(), aliasOf(link)))
		}
	}
	return spec
}

// linkEnvironment are the variables by which a container knows those it is
// linked to, with the addresses that they have when it is made.
func (s *Server) linkEnvironment(name string, spec *nodev1.ContainerSpec) []string {
	if mode := spec.GetNetwork().GetMode(); !s.isPredefined(mode) {
		return nil
	}
	var env []string
	for _, link := range spec.GetLinks() {
		to, address, ok := s.linked(link)
		if !ok {
			continue
		}
		alias := strings.ToUpper(strings.ReplaceAll(aliasOf(link), "-", "_"))
		env = append(env, portVariables(alias, address, s.specOf(to).GetNetwork().GetExpose())...)
		env = append(env, alias+"_NAME=/"+name+"/"+aliasOf(link))
		for _, variable := range to.Env {
			switch key, _, _ := strings.Cut(variable, "="); key {
			case "HOME", "PATH", "HOSTNAME", "TERM":
			default:
				env = append(env, alias+"_ENV_"+variable)
			}
		}
	}
	return env
}

// portVariables tell of the ports of a container at an address.
func portVariables(alias, address string, exposed []string) []string {
	type port struct {
		number int
		proto  string
	}
	var ports []port
	for _, text := range exposed {
		number, proto, _ := strings.Cut(text, "/")
		if n, err := strconv.Atoi(number); err == nil {
			ports = append(ports, port{n, proto})
		}
	}
	slices.SortFunc(ports, func(a, b port) int {
		if a.number != b.number {
			return a.number - b.number
		}
		return strings.Compare(a.proto, b.proto)
	})
	var env []string
	for i, p := range ports {
		url := fmt.Sprintf("%s://%s:%d", p.proto, address, p.number)
		if i == 0 {
			env = append(env, alias+"_PORT="+url)
		}
		prefix := fmt.Sprintf("%s_PORT_%d_%s", alias, p.number, strings.ToUpper(p.proto))
		env = append(env, prefix+"="+url, prefix+"_ADDR="+address, fmt.Sprintf("%s_PORT=%d", prefix, p.number), prefix+"_PROTO="+p.proto)
	}
	return env
}
