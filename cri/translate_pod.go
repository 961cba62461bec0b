package cri

import (
	"github.com/nodeagent/nodeagent/sandbox"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// podState: a pod that is being stopped takes no more containers, so kubelet
// must not count on it.
func podState(state sandbox.PodState) runtime.PodSandboxState {
	if state == sandbox.PodReady {
		return runtime.PodSandboxState_SANDBOX_READY
	}
	return runtime.PodSandboxState_SANDBOX_NOTREADY
}

// podItem is a pod as lists have it.
func podItem(pod *sandbox.Pod) *runtime.PodSandbox {
	return &runtime.PodSandbox{
		Id:             pod.ID,
		Metadata:       pod.Config.GetMetadata(),
		State:          podState(pod.State),
		CreatedAt:      nanos(pod.CreatedAt),
		Labels:         pod.Config.GetLabels(),
		Annotations:    pod.Config.GetAnnotations(),
		RuntimeHandler: pod.Handler,
	}
}

// podStatus is a pod as PodSandboxStatus and events have it.
func podStatus(pod *sandbox.Pod) *runtime.PodSandboxStatus {
	options := pod.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if options == nil {
		// kubelet makes a pod anew whose namespaces it is not told.
		options = &runtime.NamespaceOption{}
	}
	return &runtime.PodSandboxStatus{
		Id:             pod.ID,
		Metadata:       pod.Config.GetMetadata(),
		State:          podState(pod.State),
		CreatedAt:      nanos(pod.CreatedAt),
		Network:        podNetwork(pod),
		Linux:          &runtime.LinuxPodSandboxStatus{Namespaces: &runtime.Namespace{Options: options}},
		Labels:         pod.Config.GetLabels(),
		Annotations:    pod.Config.GetAnnotations(),
		RuntimeHandler: pod.Handler,
	}
}

// podNetwork has no address for a pod on the host's network and for one that
// is stopped.
func podNetwork(pod *sandbox.Pod) *runtime.PodSandboxNetworkStatus {
	status := &runtime.PodSandboxNetworkStatus{}
	if pod.Network == nil {
		return status
	}
	for i, prefix := range pod.Network.Addresses {
		ip := prefix.Addr().Unmap().String()
		if i == 0 {
			status.Ip = ip
			continue
		}
		status.AdditionalIps = append(status.AdditionalIps, &runtime.PodIP{Ip: ip})
	}
	return status
}
