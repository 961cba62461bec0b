package nodeapi

import (
	"strings"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/protobuf/encoding/protojson"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// The annotations of a nodectl pod.
const (
	// annotationSpec holds the ContainerSpec in JSON, ports chosen.
	annotationSpec = "io.nodeagent.nodectl.spec"
	// annotationKey names the container's folders.
	annotationKey = "io.nodeagent.nodectl.key"
)

// namespace is the Kubernetes namespace of nodectl's pods.
const namespace = "nodectl"

// idLength is that of an ID, in hexadecimal digits.
const idLength = 64

// podKey returns the key of a nodectl pod's folders.
func podKey(pod sandbox.Pod) string { return pod.Config.GetAnnotations()[annotationKey] }

// find returns the container a person means: by its ID, the name of one of
// nodectl's, NAMESPACE/POD[/CONTAINER] of one of kubelet's, or a unique
// prefix of its ID.
func (s *Server) find(name string) (sandbox.Container, error) {
	name = strings.TrimPrefix(name, "/")
	if len(name) == idLength { // most calls of nodectl name what it has just made
		if c, err := s.sandboxes.Container(name); err == nil && c.ID == name {
			return c, nil
		}
	}
	var byPrefix []sandbox.Container
	var byName *sandbox.Container
	all := s.sandboxes.Containers()
	for i, c := range all {
		if c.ID == name {
			return c, nil
		}
		if c.Owner == sandbox.OwnerNodectl && c.Config.GetMetadata().GetName() == name {
			byName = &all[i]
		}
		if name != "" && strings.HasPrefix(c.ID, name) {
			byPrefix = append(byPrefix, c)
		}
	}
	switch {
	case byName != nil:
		return *byName, nil
	case strings.Contains(name, "/"):
		return s.findInPod(name, all)
	case len(byPrefix) == 1:
		return byPrefix[0], nil
	case len(byPrefix) > 1:
		return sandbox.Container{}, failf(errdefs.ErrInvalidArgument, "multiple IDs found with provided prefix: %s", name)
	}
	return sandbox.Container{}, failf(errdefs.ErrNotFound, "No such container: %s", name)
}

// findInPod returns a container of kubelet's by NAMESPACE/POD[/CONTAINER]:
// the running one of a name, or else the newest. Without CONTAINER the pod
// must have containers of one name only.
func (s *Server) findInPod(name string, all []sandbox.Container) (sandbox.Container, error) {
	parts := strings.SplitN(name, "/", 3)
	var found *sandbox.Container
	for i, c := range all {
		if c.Owner != sandbox.OwnerCRI || (len(parts) == 3 && c.Config.GetMetadata().GetName() != parts[2]) {
			continue
		}
		pod, err := s.sandboxes.Pod(c.PodID)
		if err != nil || pod.Config.GetMetadata().GetNamespace() != parts[0] || pod.Config.GetMetadata().GetName() != parts[1] {
			continue
		}
		if found != nil && found.Config.GetMetadata().GetName() != c.Config.GetMetadata().GetName() {
			return sandbox.Container{}, failf(errdefs.ErrInvalidArgument,
				"pod %s has several containers: name one as %s/CONTAINER", name, name)
		}
		if found == nil || preferred(c, *found) {
			found = &all[i]
		}
	}
	if found == nil {
		return sandbox.Container{}, failf(errdefs.ErrNotFound, "No such container: %s", name)
	}
	return *found, nil
}

// preferred says whether a is to be taken before b of the same name.
func preferred(a, b sandbox.Container) bool {
	if (a.State == sandbox.ContainerRunning) != (b.State == sandbox.ContainerRunning) {
		return a.State == sandbox.ContainerRunning
	}
	return a.CreatedAt.After(b.CreatedAt)
}

// spec returns what a person asked for when making a nodectl container; for
// one of kubelet's it is nil. The result must not be changed.
func (s *Server) spec(pod sandbox.Pod) *nodev1.ContainerSpec {
	if pod.Owner != sandbox.OwnerNodectl {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if spec, ok := s.specs[pod.ID]; ok {
		return spec
	}
	spec := &nodev1.ContainerSpec{}
	// An annotation that does not parse was written by no version of this
	// package: the container is then shown without what only it tells.
	_ = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal([]byte(pod.Config.GetAnnotations()[annotationSpec]), spec)
	spec = s.withUpdate(podKey(pod), spec)
	s.specs[pod.ID] = spec
	return spec
}

// specOf is spec for a container whose pod is looked up.
func (s *Server) specOf(c sandbox.Container) *nodev1.ContainerSpec {
	pod, err := s.sandboxes.Pod(c.PodID)
	if err != nil {
		return nil
	}
	return s.spec(pod)
}
