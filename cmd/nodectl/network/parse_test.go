package network

import (
	"testing"
	"time"
)

func TestPruneRequest(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	req, err := pruneRequest([]string{"until=1h", "label=a", "label!=b=c"}, now)
	if err != nil || !req.GetUntil().AsTime().Equal(now.Add(-time.Hour)) || req.GetLabels()[0] != "a" || req.GetLabelsNot()[0] != "b=c" {
		t.Errorf("%v: %v", req, err)
	}
	for text, want := range map[string]time.Time{
		"2026-01-01T00:00:00Z": time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		"1700000000":           time.Unix(1700000000, 0),
	} {
		if got, err := momentOf(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, filters := range [][]string{{"until"}, {"color=red"}, {"until=soon"}} {
		if _, err := pruneRequest(filters, now); err == nil {
			t.Errorf("%v is taken", filters)
		}
	}
}

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
