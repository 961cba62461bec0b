package sandbox

import (
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A call that is made again because nobody heard the answer is not the same to
// the last byte: kubelet names a file of the container anew each time, and what
// may change of a pod may have changed since. What is left must be equal, or
// somebody would take another's container for the one that was asked for.

// sameContainer tells whether two configurations ask for the same container.
func sameContainer(a, b *runtime.ContainerConfig) bool {
	if a == b {
		return true
	}
	return proto.Equal(lastingContainer(a), lastingContainer(b))
}

// lastingContainer is what does not change when a call is made again.
func lastingContainer(config *runtime.ContainerConfig) *runtime.ContainerConfig {
	c := proto.CloneOf(config)
	c.Labels, c.Annotations = nil, nil
	for _, mt := range c.GetMounts() {
		mt.HostPath = ""
	}
	if c.Linux == nil {
		c.Linux = &runtime.LinuxContainerConfig{}
	}
	c.Linux.Resources = nil
	return c
}

// samePod tells whether two requests ask for the same pod.
func samePod(a, b *Pod) bool {
	if a.Config == b.Config {
		return true
	}
	return a.Handler == b.Handler && proto.Equal(lastingPod(a.Config), lastingPod(b.Config))
}

// lastingPod is what does not change when a call is made again.
func lastingPod(config *runtime.PodSandboxConfig) *runtime.PodSandboxConfig {
	c := proto.CloneOf(config)
	c.Labels, c.Annotations, c.DnsConfig = nil, nil, nil
	if c.Linux == nil {
		c.Linux = &runtime.LinuxPodSandboxConfig{}
	}
	c.Linux.Resources, c.Linux.Overhead = nil, nil
	return c
}
