// Package kubelet runs pods through a real kubelet, on its own without an API server, against the agent: what kubelet
// makes of CRI is only seen with kubelet.
package kubelet
