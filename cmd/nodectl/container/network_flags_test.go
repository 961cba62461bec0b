package container

import (
	"strings"
	"testing"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"google.golang.org/protobuf/proto"
)

func TestNetworkEndpoints(t *testing.T) {
	for name, test := range map[string]struct {
		flags networkFlags
		want  []*nodev1.EndpointSpec
		err   string
	}{
		"none given": {networkFlags{}, []*nodev1.EndpointSpec{{Network: "bridge"}}, ""},
		"default":    {networkFlags{networks: []string{"default"}}, []*nodev1.EndpointSpec{{Network: "bridge"}}, ""},
		"two": {
			networkFlags{networks: []string{"a", "b"}, ip: "10.0.0.1", aliases: []string{"x"}},
			[]*nodev1.EndpointSpec{{Network: "a", Ipv4: "10.0.0.1", Aliases: []string{"x"}}, {Network: "b"}}, "",
		},
		"long form": {
			networkFlags{networks: []string{"name=a,alias=x,alias=y,ip=10.0.0.1,ip6=fd00::1,mac-address=02:00:00:00:00:01,driver-opt=k=v,gw-priority=-2"}},
			[]*nodev1.EndpointSpec{{
				Network: "a", Aliases: []string{"x", "y"}, Ipv4: "10.0.0.1", Ipv6: "fd00::1", Mac: "02:00:00:00:00:01", DriverOptions: map[string]string{"k": "v"},
				GatewayPriority: -2,
			}}, "",
		},
		"bad priority":    {networkFlags{networks: []string{"name=a,gw-priority=x"}}, nil, "invalid gw-priority (x)"},
		"no name":         {networkFlags{networks: []string{"alias=x"}}, nil, "network name/id is not specified"},
		"unknown field":   {networkFlags{networks: []string{"name=a,color=red"}}, nil, "invalid field key color"},
		"no value":        {networkFlags{networks: []string{"name=a,alias="}}, nil, "invalid field alias="},
		"bad option":      {networkFlags{networks: []string{"name=a,driver-opt=x"}}, nil, "invalid key value pair format in driver options"},
		"address twice":   {networkFlags{networks: []string{"name=a,ip=10.0.0.1"}, ip: "10.0.0.2"}, nil, "conflicting options: cannot specify both --ip"},
		"aliases twice":   {networkFlags{networks: []string{"name=a,alias=x"}, aliases: []string{"y"}}, nil, "cannot specify both --network-alias"},
		"unclosed quotes": {networkFlags{networks: []string{`name="a=`}}, nil, "invalid argument"},
	} {
		got, err := test.flags.endpoints()
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || len(got) != len(test.want) {
			t.Errorf("%s: %v, %v", name, got, err)
			continue
		}
		for i := range got {
			if !proto.Equal(got[i], test.want[i]) {
				t.Errorf("%s: %v", name, got[i])
			}
		}
	}
}

func FuzzParseNetwork(f *testing.F) {
	f.Add("net")
	f.Add(`name=a,"alias=x,y",driver-opt=k=v`)
	f.Fuzz(func(t *testing.T, text string) {
		e, err := parseNetwork(text)
		if err == nil && strings.Contains(text, "=") && e.GetNetwork() == "" {
			t.Errorf("%q names no network", text)
		}
	})
}
