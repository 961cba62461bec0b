package nodeapi

import (
	"slices"
	"testing"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

func TestRequestedDevices(t *testing.T) {
	nvidia := []string{
		"nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=10", "nvidia.com/gpu=2", "nvidia.com/gpu=GPU-5a", "nvidia.com/gpu=all", "vendor.com/gpu=a",
	}
	other := []string{"vendor.com/gpu=a", "vendor.com/gpu=b", "vendor.com/nic=0"}
	gpu := []string{"gpu"}
	for name, test := range map[string]struct {
		req  *nodev1.DeviceRequest
		have []string
		want []string // nil is a refusal
	}{
		"all":            {&nodev1.DeviceRequest{Count: -1, Capabilities: gpu}, nvidia, []string{"nvidia.com/gpu=all"}},
		"by number":      {&nodev1.DeviceRequest{Count: 3, Capabilities: gpu}, nvidia, []string{"nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=2"}},
		"too many":       {&nodev1.DeviceRequest{Count: 5, Capabilities: gpu}, nvidia, nil},
		"named":          {&nodev1.DeviceRequest{DeviceIds: []string{"1", "GPU-5a"}, Capabilities: gpu}, nvidia, []string{"nvidia.com/gpu=1", "nvidia.com/gpu=GPU-5a"}},
		"both":           {&nodev1.DeviceRequest{Count: 1, DeviceIds: []string{"1"}, Capabilities: gpu}, nvidia, nil},
		"another's":      {&nodev1.DeviceRequest{Count: -1, Capabilities: gpu}, other, []string{"vendor.com/gpu=a", "vendor.com/gpu=b"}},
		"not nvidia's":   {&nodev1.DeviceRequest{Count: -1, Capabilities: gpu, Driver: "nvidia"}, other, nil},
		"none":           {&nodev1.DeviceRequest{Count: -1, Capabilities: gpu}, nil, nil},
		"no GPU":         {&nodev1.DeviceRequest{Count: 1, Capabilities: []string{"tpu"}}, nvidia, nil},
		"unknown driver": {&nodev1.DeviceRequest{Count: 1, Capabilities: gpu, Driver: "x"}, nvidia, nil},
		"whole names":    {&nodev1.DeviceRequest{DeviceIds: []string{"vendor.com/nic=0"}, Capabilities: gpu, Driver: "cdi"}, other, []string{"vendor.com/nic=0"}},
	} {
		got, err := requestedDevices(test.req, test.have)
		if (err != nil) != (test.want == nil) || !slices.Equal(got, test.want) {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
}
