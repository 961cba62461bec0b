package network

import "testing"

func FuzzIPAM(f *testing.F) {
	f.Add("10.0.0.0/24", "10.0.0.128/25", "10.0.0.1", "a=10.0.0.9")
	f.Add("fd00::/64", "", "fd00::1", "=")
	f.Fuzz(func(t *testing.T, subnet, within, gateway, aux string) {
		flags := createFlags{subnets: []string{subnet}, ranges: []string{within}, gateways: []string{gateway}, aux: []string{aux}}
		list, err := flags.ipam()
		if err == nil && (len(list) != 1 || list[0].GetGateway() != gateway || list[0].GetIpRange() != within || len(list[0].GetAuxiliary()) != 1) {
			t.Errorf("%v", list)
		}
	})
}
