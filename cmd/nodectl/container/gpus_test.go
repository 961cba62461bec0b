package container

import (
	"testing"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"google.golang.org/protobuf/proto"
)

func TestGPUs(t *testing.T) {
	gpu := []string{"gpu"}
	for text, want := range map[string]*nodev1.DeviceRequest{
		"all":                              {Count: -1, Capabilities: gpu},
		"2":                                {Count: 2, Capabilities: gpu},
		"count=all":                        {Count: -1, Capabilities: gpu},
		`"device=0,1"`:                     {DeviceIds: []string{"0", "1"}, Capabilities: gpu},
		"device=GPU-5a":                    {DeviceIds: []string{"GPU-5a"}, Capabilities: gpu},
		"device=0,1":                       {Count: 1, DeviceIds: []string{"0"}, Capabilities: gpu}, // as docker: refused by the agent
		"driver=nvidia":                    {Driver: "nvidia", Count: 1, Capabilities: gpu},
		`"capabilities=compute,x",count=2`: {Count: 2, Capabilities: []string{"compute", "x", "gpu"}},
		`all,"options=a=b,c=d"`:            {Count: -1, Capabilities: gpu, Options: map[string]string{"a": "b", "c": "d"}},
		"x":                                nil,
		"count=1,count=2":                  nil,
		"all,1":                            nil,
		"foo=bar":                          nil,
		`"`:                                nil,
		"":                                 nil,
	} {
		var flag gpuFlag
		err := flag.Set(text)
		if want == nil {
			if err == nil {
				t.Errorf("%q: %v", text, flag.requests)
			}
			continue
		}
		if err != nil || len(flag.requests) != 1 || !proto.Equal(flag.requests[0], want) {
			t.Errorf("%q: %v %v", text, flag.requests, err)
		}
	}
}

func FuzzGPUs(f *testing.F) {
	for _, text := range []string{"all", `"device=0,1"`, "count=2,driver=x", `"options=a=b"`, `"`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var flag gpuFlag
		if err := flag.Set(text); err == nil && len(flag.requests) != 1 {
			t.Errorf("%d requests", len(flag.requests))
		}
	})
}

func TestParseHost(t *testing.T) {
	for text, want := range map[string]string{
		"a:1.2.3.4": "a:1.2.3.4", "a=1.2.3.4": "a:1.2.3.4", "a:::1": "a:::1", "a=[::1]": "a:::1", "a:host-gateway": "a:host-gateway",
		"a": "", "a:": "", ":1.2.3.4": "", "a:b": "", "a:[::1": "",
	} {
		if got, err := parseHost(text); got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q %v", text, got, err)
		}
	}
}
