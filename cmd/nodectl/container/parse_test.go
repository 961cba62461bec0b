package container

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"google.golang.org/protobuf/testing/protocmp"
)

func TestParsePublish(t *testing.T) {
	tests := map[string][]*nodev1.Port{
		"80":                     {{ContainerPort: 80, Protocol: "tcp"}},
		"8081:8080":              {{ContainerPort: 8080, HostPort: 8081, Protocol: "tcp"}},
		"53:53/udp":              {{ContainerPort: 53, HostPort: 53, Protocol: "udp"}},
		"127.0.0.1:80:81":        {{ContainerPort: 81, HostPort: 80, HostIp: "127.0.0.1", Protocol: "tcp"}},
		"127.0.0.1::81":          {{ContainerPort: 81, HostIp: "127.0.0.1", Protocol: "tcp"}},
		"[::1]:80:81/SCTP":       {{ContainerPort: 81, HostPort: 80, HostIp: "::1", Protocol: "sctp"}},
		"9000-9001:8000-8001":    {{ContainerPort: 8000, HostPort: 9000, Protocol: "tcp"}, {ContainerPort: 8001, HostPort: 9001, Protocol: "tcp"}},
		"127.0.0.1:90-91:90-91":  {{ContainerPort: 90, HostPort: 90, HostIp: "127.0.0.1", Protocol: "tcp"}, {ContainerPort: 91, HostPort: 91, HostIp: "127.0.0.1", Protocol: "tcp"}},
		"9000-9002:80":           {{ContainerPort: 80, HostPort: 9000, HostPortLast: 9002, Protocol: "tcp"}},
		"published=90,target=80": {{ContainerPort: 80, HostPort: 90, Protocol: "tcp"}},
		"target=80,protocol=udp": {{ContainerPort: 80, Protocol: "udp"}},
		"published=90,80":        nil,
		"published=90":           nil,
		"":                       nil,
		"0":                      nil,
		"65536":                  nil,
		"80:":                    nil,
		"90-80":                  nil,
		"1-2:1-3":                nil,
		"1.2.3:80:80":            nil,
		"[::1:80:80":             nil,
		"80:80/icmp":             nil,
		"1:2:3:4":                nil,
		"99999999999999999999:1": nil,
	}
	for text, want := range tests {
		got, err := parsePublish(text)
		if (err != nil) != (want == nil) {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); err == nil && diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

func TestParseMounts(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		parse func(string) (*nodev1.Mount, error)
		text  string
		want  *nodev1.Mount
	}{
		{parseVolume, "/a:/b", &nodev1.Mount{Source: "/a", Target: "/b", CreateSource: true}},
		{parseVolume, "./x:/b:ro,rslave", &nodev1.Mount{Source: filepath.Join(here, "x"), Target: "/b", CreateSource: true, ReadOnly: true, Propagation: "rslave"}},
		{parseVolume, "named:/b:ro,nocopy", &nodev1.Mount{Type: nodev1.Mount_VOLUME, Source: "named", Target: "/b", ReadOnly: true, NoCopy: true}},
		{parseVolume, "/b", &nodev1.Mount{Type: nodev1.Mount_VOLUME, Target: "/b"}},
		{parseVolume, ":/b", nil},
		{parseVolume, "", nil},
		{parseVolume, "/a:/b:odd", nil},
		{parseVolume, "a:b:c:d", nil},
		{parseMount, "type=bind,src=/a,dst=/b,readonly", &nodev1.Mount{Source: "/a", Target: "/b", ReadOnly: true}},
		{parseMount, "type=bind,source=/a,target=/b,ro=false,bind-propagation=shared", &nodev1.Mount{Source: "/a", Target: "/b", Propagation: "shared"}},
		{parseMount, "type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=700", &nodev1.Mount{Type: nodev1.Mount_TMPFS, Target: "/t", TmpfsSize: 1 << 20, TmpfsMode: 0o700}},
		{parseMount, "type=image,source=box,target=/i,image-subpath=a/b", &nodev1.Mount{Type: nodev1.Mount_IMAGE, Source: "box", Target: "/i", Subpath: "a/b"}},
		{parseMount, "source=v,target=/b", &nodev1.Mount{Type: nodev1.Mount_VOLUME, Source: "v", Target: "/b"}},
		{parseMount, "type=volume,src=v,dst=/b,volume-nocopy,volume-subpath=x,volume-driver=local,volume-label=a=b,\"volume-opt=o=size=1m,uid=2\"", &nodev1.Mount{
			Type: nodev1.Mount_VOLUME, Source: "v", Target: "/b", NoCopy: true, Subpath: "x", VolumeDriver: "local",
			VolumeLabels: map[string]string{"a": "b"}, VolumeOptions: map[string]string{"o": "size=1m,uid=2"},
		}},
		{parseMount, "type=bind,src=/a,dst=/b,bind-recursive=disabled", &nodev1.Mount{Source: "/a", Target: "/b", NonRecursive: true}},
		{parseMount, "type=bind,src=/a,dst=/b,volume-nocopy", nil},
		{parseMount, "type=tmpfs,src=/a,dst=/b", nil},
		{parseTmpfs, "/t:uid=5,nr_inodes=1k,noatime,ro", &nodev1.Mount{Type: nodev1.Mount_TMPFS, Target: "/t", ReadOnly: true, Options: []string{"uid=5", "nr_inodes=1k"}}},
		{parseTmpfs, "/t:uid=root", nil},
		{parseTmpfs, "/t:nosuch", nil},
		{parseMount, "type=odd,target=/b", nil},
		{parseMount, "type=bind,source=/a", nil},
		{parseMount, "type=bind,target=/b,colour=red", nil},
		{parseMount, "\"", nil},
		{parseTmpfs, "/run", &nodev1.Mount{Type: nodev1.Mount_TMPFS, Target: "/run"}},
		{parseTmpfs, "/run:rw,exec,size=64k,mode=755", &nodev1.Mount{Type: nodev1.Mount_TMPFS, Target: "/run", Options: []string{"exec"}, TmpfsSize: 64 << 10, TmpfsMode: 0o755}},
		{parseTmpfs, "/run:odd", nil},
	}
	for _, test := range tests {
		got, err := test.parse(test.text)
		if (err != nil) != (test.want == nil) {
			t.Errorf("%q: %v", test.text, err)
		}
		if diff := cmp.Diff(test.want, got, protocmp.Transform()); err == nil && diff != "" {
			t.Errorf("%q: %s", test.text, diff)
		}
	}
}

func TestParseDevice(t *testing.T) {
	for text, want := range map[string]string{
		"/dev/a": "/dev/a /dev/a rwm", "/dev/a:/dev/b": "/dev/a /dev/b rwm", "/dev/a:r": "/dev/a /dev/a r", "/dev/a:/dev/b:rw": "/dev/a /dev/b rw",
		"dev": "", "/dev/a:/dev/b:x": "", "/a:/b:r:w": "",
	} {
		d, err := parseDevice(text)
		got := strings.Join([]string{d.GetHostPath(), d.GetContainerPath(), d.GetPermissions()}, " ")
		if (err != nil) != (want == "") || (err == nil && got != want) {
			t.Errorf("%q: got %q %v", text, got, err)
		}
	}
}

func TestParseCPUs(t *testing.T) {
	for text, want := range map[string]int64{"1.5": 15e8, "0.01": 1e7, "2": 2e9, "x": 0, "0.0000000001": 0, "1e9999999": 0} {
		if got, err := parseCPUs(text); got != want || (err != nil) != (want == 0) {
			t.Errorf("%q: got %d %v", text, got, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("FROM_OUTSIDE", "yes")
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("\ufeff# comment\n\nA=1 # kept\n  B=\nFROM_OUTSIDE\nNOT_THERE\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := environment([]string{file}, []string{"C=2", "FROM_OUTSIDE", "NOT_THERE"})
	if want := []string{"A=1 # kept", "B=", "FROM_OUTSIDE=yes", "C=2", "FROM_OUTSIDE=yes", "NOT_THERE"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q %v", got, err)
	}
	for _, bad := range []string{"=x", "A B=c"} {
		if _, err := envLines(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestParseTime(t *testing.T) {
	for text, want := range map[string]time.Time{
		"1700000000":           time.Unix(1700000000, 0),
		"1700000000.25":        time.Unix(1700000000, 25e7),
		"2023-01-02T03:04:05Z": time.Date(2023, 1, 2, 3, 4, 5, 0, time.UTC),
		"2023-01-02":           time.Date(2023, 1, 2, 0, 0, 0, 0, time.Local),
		"2023-01-02T03:04Z":    time.Date(2023, 1, 2, 3, 4, 0, 0, time.UTC),
		"2023-01-02T03+01:00":  time.Date(2023, 1, 2, 2, 0, 0, 0, time.UTC),
	} {
		got, err := command.ParseTime(text)
		if err != nil || !got.AsTime().Equal(want) {
			t.Errorf("%q: got %v %v", text, got.AsTime(), err)
		}
	}
	if got, err := command.ParseTime("10m"); err != nil || time.Since(got.AsTime()) < 10*time.Minute || time.Since(got.AsTime()) > 11*time.Minute {
		t.Errorf("10m: got %v %v", got, err)
	}
	for _, text := range []string{"", "soon"} {
		if got, err := command.ParseTime(text); err == nil {
			t.Errorf("%q was taken as %v", text, got)
		}
	}
}

func FuzzParsePublish(f *testing.F) {
	for _, seed := range []string{"80", "[::1]:80-81:80-81/udp", "1.2.3.4::5"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ports, err := parsePublish(text)
		for _, p := range ports {
			if err != nil || p.GetContainerPort() == 0 || p.GetContainerPort() > 65535 || p.GetHostPort() > 65535 {
				t.Fatalf("%q gave %v, %v", text, p, err)
			}
		}
	})
}

func FuzzParseMounts(f *testing.F) {
	for _, seed := range []string{"/a:/b:ro", "type=bind,src=/a,dst=/b", "/run:size=1m", "/dev/a:/dev/b:r"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, parse := range []func(string) (*nodev1.Mount, error){parseVolume, parseMount, parseTmpfs} {
			if m, err := parse(text); (m == nil) != (err != nil) {
				t.Fatalf("%q gave %v, %v", text, m, err)
			}
		}
		if d, err := parseDevice(text); err == nil && !filepath.IsAbs(d.GetHostPath()) {
			t.Fatalf("%q gave %v", text, d)
		}
	})
}
