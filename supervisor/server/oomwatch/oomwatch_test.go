package oomwatch

import "testing"

func TestParse(t *testing.T) {
	for text, want := range map[string]uint64{
		"oom_kill_disable 0\nunder_oom 1\noom_kill 3\n":                                   3,
		"oom_kill_disable 0\nunder_oom 0\n":                                               0, // Linux before 4.13
		"low 0\nhigh 0\nmax 812\noom 9\noom_kill 7\noom_group_kill 1\nsock_throttled 0\n": 7,
		"low 0\nhigh 0\nmax 0\noom 0\noom_kill 18446744073709551615":                      1<<64 - 1,
		"oom_kill": 0, "oom_kill x\n": 0, "": 0,
	} {
		if got := parse([]byte(text)); got != want {
			t.Errorf("%q: %d kills", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("low 0\noom_kill 7\noom_group_kill 1\n"))
	f.Fuzz(func(_ *testing.T, data []byte) { parse(data) })
}
