package imageconfig

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestApply(t *testing.T) {
	base := func() Config {
		var c Config
		c.Env, c.Cmd, c.WorkingDir = []string{"PATH=/bin", "A=1"}, []string{"old"}, "/srv"
		return c
	}
	for name, test := range map[string]struct {
		changes []string
		want    func(*Config)
	}{
		"cmd for the shell":     {[]string{"CMD echo $A"}, func(c *Config) { c.Cmd = []string{"/bin/sh", "-c", "echo $A"} }},
		"cmd in JSON":           {[]string{`cmd ["a", "b c"]`}, func(c *Config) { c.Cmd = []string{"a", "b c"} }},
		"entry point":           {[]string{`ENTRYPOINT ["x"]`}, func(c *Config) { c.Entrypoint, c.Cmd = []string{"x"}, nil }},
		"entry point after cmd": {[]string{`CMD ["y"]`, `ENTRYPOINT ["x"]`}, func(c *Config) { c.Entrypoint, c.Cmd = []string{"x"}, []string{"y"} }},
		"env": {[]string{`ENV B="two words" A=$A:2 C='$A' D=${E:-none}${A:+set}`, "ENV F one two"},
			func(c *Config) {
				c.Env = []string{"PATH=/bin", "A=1:2", "B=two words", "C=$A", "D=noneset", "F=one two"}
			}},
		"path":   {[]string{"ENV PATH $PATH:/more"}, func(c *Config) { c.Env[0] = "PATH=/bin:/more" }},
		"label":  {[]string{`LABEL a=b "c d"="e f" g=\ h`}, func(c *Config) { c.Labels = map[string]string{"a": "b", "c d": "e f", "g": " h"} }},
		"expose": {[]string{"EXPOSE 80 53/udp 90-91"}, func(c *Config) { c.ExposedPorts = set("80/tcp", "53/udp", "90/tcp", "91/tcp") }},
		"volume": {[]string{`VOLUME ["/a b"]`, "VOLUME /c /d"}, func(c *Config) { c.Volumes = set("/a b", "/c", "/d") }},
		"user":   {[]string{"USER me:$A"}, func(c *Config) { c.User = "me:1" }},
		"workdir": {[]string{"WORKDIR a", "WORKDIR b/../c", "STOPSIGNAL SIGINT", "ONBUILD RUN x"},
			func(c *Config) { c.WorkingDir, c.StopSignal, c.OnBuild = "/srv/a/c", "SIGINT", []string{"RUN x"} }},
		"healthcheck": {[]string{`HEALTHCHECK --interval=5s --retries=3 CMD curl x`}, func(c *Config) {
			c.Healthcheck = &Healthcheck{Test: []string{"CMD-SHELL", "curl x"}, Interval: 5 * time.Second, Retries: 3}
		}},
		"no healthcheck": {[]string{"HEALTHCHECK NONE"}, func(c *Config) { c.Healthcheck = &Healthcheck{Test: []string{"NONE"}} }},
	} {
		t.Run(name, func(t *testing.T) {
			got, want := base(), base()
			if err := got.Apply(test.changes); err != nil {
				t.Fatal(err)
			}
			test.want(&want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func set(names ...string) map[string]struct{} {
	out := map[string]struct{}{}
	for _, n := range names {
		out[n] = struct{}{}
	}
	return out
}

func TestApplyRefuses(t *testing.T) {
	for _, change := range []string{
		"", "RUN x", "FROM x", "COPY a b", "CMD", "ENV", "ENV A", `ENV A="x`, "ENV A='x", "ENV A=1 b", "ENV =1", "EXPOSE 0", "EXPOSE 99999",
		"EXPOSE 9-1", "EXPOSE x", "EXPOSE 1/http", "USER a b", "STOPSIGNAL a b", "ONBUILD ONBUILD x", "ONBUILD FROM x", "HEALTHCHECK", "HEALTHCHECK x",
		"HEALTHCHECK CMD", "HEALTHCHECK --interval=x CMD y", "HEALTHCHECK --nosuch=1 NONE", "ENV A=${B", "ENV A=${B?x}", `VOLUME [" "]`,
		"LABEL " + strings.Repeat("x", maxChange),
	} {
		var c Config
		if err := c.Apply([]string{change}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%.40q: %v", change, err)
		}
	}
}

func TestDocument(t *testing.T) {
	raw := `{"architecture":"amd64","os":"linux","author":"old","created":"2020-01-01T00:00:00Z","container":"abc","new.field":{"a":1},
		"config":{"Cmd":["x"],"Healthcheck":{"Test":["NONE"]},"OnBuild":["RUN y"]},"rootfs":{"type":"layers","diff_ids":["sha256:` + strings.Repeat("a", 64) + `"]}}`
	d, err := Parse([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1e9, 0).UTC()
	d.AddLayer(digest.FromString("layer"), ocispec.History{Created: &at, CreatedBy: "sh", Comment: "c"})
	out, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"architecture": "amd64", "os": "linux", "created": "2001-09-09T01:46:40Z", "new.field": map[string]any{"a": 1.0},
		"config":  map[string]any{"Cmd": []any{"x"}, "Healthcheck": map[string]any{"Test": []any{"NONE"}}, "OnBuild": []any{"RUN y"}},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []any{"sha256:" + strings.Repeat("a", 64), digest.FromString("layer").String()}},
		"history": []any{map[string]any{"created": "2001-09-09T01:46:40Z", "created_by": "sh", "comment": "c"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"", "[]", `{"config":1}`, `{"rootfs":{"diff_ids":"x"}}`} {
		if _, err := Parse([]byte(bad)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzApply(f *testing.F) {
	f.Add(`ENV A="$B" C='d'`)
	f.Add(`HEALTHCHECK --interval=1s CMD ["x"]`)
	f.Add("EXPOSE 1-65535/udp")
	f.Fuzz(func(t *testing.T, change string) {
		c := Config{}
		c.Env = []string{"B=value"}
		if err := c.Apply([]string{change}); err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", change, err)
		}
		if _, err := (&Document{Config: c}).Encode(); err != nil {
			t.Error(err)
		}
	})
}
