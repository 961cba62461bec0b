package cgroups

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const hybridMountinfo = `23 20 0:5 / /sys rw - sysfs sysfs rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:4 master:7 - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/uni\040fied rw,relatime - cgroup2 cgroup2 rw
42 31 0:29 / /sys/fs/cgroup/again rw,relatime - cgroup cgroup rw,cpu,cpuacct
43 31 0:39 / /mnt/elsewhere rw,relatime - cgroup cgroup rw,memory
44 31 0:40 / /sys/fs/cgroup2 rw - cgroup cgroup rw,pids
rubbish - cgroup cgroup rw,pids
`

func TestParseMountinfo(t *testing.T) {
	found, err := parseMountinfo(strings.NewReader(hybridMountinfo), DefaultRoot)
	if err != nil {
		t.Fatal(err)
	}
	want := []*hierarchy{
		{mountpoint: "/sys/fs/cgroup/cpu,cpuacct", controllers: []string{"cpu", "cpuacct"}},
		{mountpoint: "/sys/fs/cgroup/systemd"},
		{mountpoint: "/sys/fs/cgroup/uni fied", v2: true},
	}
	if d := cmp.Diff(want, found, cmp.AllowUnexported(hierarchy{})); d != "" {
		t.Error(d)
	}
	if got := modeOf(found); got != Hybrid {
		t.Errorf("mode %s", got)
	}
	if got := modeOf(found[:2]); got != V1 {
		t.Errorf("mode %s", got)
	}
	if got := modeOf(found[2:]); got != V2 {
		t.Errorf("mode %s", got)
	}
}

// The long line of another mount is no reason not to find the cgroups.
func TestParseMountinfoOfManyLayers(t *testing.T) {
	line := "40 1 0:40 / /merged rw - overlay overlay rw,lowerdir=" + strings.Repeat("/var/lib/layers/1:", 10_000) + "\n"
	found, err := parseMountinfo(strings.NewReader(line+hybridMountinfo), DefaultRoot)
	if err != nil || len(found) == 0 {
		t.Errorf("%d hierarchies, %v", len(found), err)
	}
}

func TestParseBlkio(t *testing.T) {
	var table ioTable
	parseBlkio([]byte("8:0 Read 10\n8:0 Write 20\n8:0 Sync 5\n8:16 Read 1\n8:0 Total 30\nTotal 31\n"), &table, false)
	parseBlkio([]byte("8:0 Read 3\n8:0 Write 4\n"), &table, true)
	want := []IOStats{{Major: 8, ReadBytes: 10, WriteBytes: 20, ReadOps: 3, WriteOps: 4}, {Major: 8, Minor: 16, ReadBytes: 1}}
	if d := cmp.Diff(want, table.list()); d != "" {
		t.Error(d)
	}
}

func TestParsersRefuse(t *testing.T) {
	for _, s := range []string{"x\n", "-4\n", "12 13\n", "99999999999999999999\n"} {
		if pids, err := parsePIDs([]byte(s)); err == nil {
			t.Errorf("%q gave %v", s, pids)
		}
	}
	for _, s := range []string{"", "x", "-2", "1 2"} {
		if n, err := parseNumber([]byte(s)); err == nil {
			t.Errorf("%q gave %d", s, n)
		}
	}
	for _, s := range []string{"some avg10=x", "full avg60=NaN", "some total=-1", "some avg300"} {
		if p, err := parsePSI([]byte(s)); err == nil {
			t.Errorf("%q gave %+v", s, p)
		}
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add(hybridMountinfo)
	f.Add(`1 2 0:1 / /sys/fs/cgroup/\134\777 rw - cgroup2 x rw`)
	f.Fuzz(func(t *testing.T, s string) {
		found, err := parseMountinfo(strings.NewReader(s), DefaultRoot)
		if err != nil {
			return
		}
		for _, h := range found {
			if !within(h.mountpoint, DefaultRoot) {
				t.Errorf("%q is not below %s", h.mountpoint, DefaultRoot)
			}
		}
		newManager(found)
	})
}

func FuzzParsers(f *testing.F) {
	f.Add([]byte("1\n2\n"))
	f.Add([]byte("max\n"))
	f.Add([]byte("some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.00"))
	f.Add([]byte("8:0 rbytes=1 wbytes=2\n8:16 Read 5\n"))
	f.Add([]byte("oom_kill 3\nunder_oom 0\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if pids, err := parsePIDs(data); err == nil {
			for _, pid := range pids {
				if pid <= 0 {
					t.Errorf("process %d", pid)
				}
			}
		}
		_, _ = parseNumber(data)
		parseFlat(data)
		parseNumbers(data)
		_, _ = parsePSI(data)
		var table ioTable
		parseBlkio(data, &table, true)
		parseIOStat(data, &table)
		if n := len(table.list()); n > len(data) {
			t.Errorf("%d devices of %d bytes", n, len(data))
		}
	})
}

func FuzzUnit(f *testing.F) {
	f.Add("kubepods-burstable-pod1.slice:cri:abc")
	f.Add("/a/../b")
	f.Fuzz(func(t *testing.T, path string) {
		for _, driver := range []Driver{Cgroupfs, Systemd} {
			m := newManager([]*hierarchy{{mountpoint: "/m"}})
			m.driver = driver
			got, err := m.clean(path)
			if err != nil {
				continue
			}
			if got == "/" || !strings.HasPrefix(got, "/") || strings.Contains(got+"/", "/../") {
				t.Errorf("%q gave %q", path, got)
			}
		}
	})
}
