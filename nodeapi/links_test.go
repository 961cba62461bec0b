package nodeapi

import (
	"slices"
	"testing"
)

func TestPortVariables(t *testing.T) {
	want := []string{
		"DB_PORT=udp://10.0.0.1:53",
		"DB_PORT_53_UDP=udp://10.0.0.1:53", "DB_PORT_53_UDP_ADDR=10.0.0.1", "DB_PORT_53_UDP_PORT=53", "DB_PORT_53_UDP_PROTO=udp",
		"DB_PORT_80_TCP=tcp://10.0.0.1:80", "DB_PORT_80_TCP_ADDR=10.0.0.1", "DB_PORT_80_TCP_PORT=80", "DB_PORT_80_TCP_PROTO=tcp",
	}
	if got := portVariables("DB", "10.0.0.1", []string{"80/tcp", "nonsense", "53/udp"}); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := portVariables("DB", "10.0.0.1", nil); got != nil {
		t.Errorf("%q", got)
	}
}

func TestLinkLines(t *testing.T) {
	link := "0123456789abcdef:db"
	for line, want := range map[string]bool{
		"10.0.0.1\tdb 0123456789ab store\n": true,
		"10.0.0.1\tdb 0123456789ab\n":       false,
		"10.0.0.1\tdb fedcba987654 store\n": false,
		"10.0.0.1\tdb\n":                    false,
		"10.0.0.1\tother 0123456789ab x\n":  false,
		"\n":                                false,
	} {
		if isLinkLine(line, link) != want {
			t.Errorf("%q", line)
		}
	}
	if !isLinkLine("10.0.0.1\tdb 0123456789ab store\n", "store:db") {
		t.Error("one by name is not found")
	}
	if aliasOf("store") != "store" || aliasOf("store:db") != "db" {
		t.Error("aliases")
	}
}
