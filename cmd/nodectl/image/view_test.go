package image

import (
	"strings"
	"testing"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// TestViewOfWidths shows images on terminals that are too narrow for all of it.
func TestViewOfWidths(t *testing.T) {
	images := []*nodev1.Image{
		{Id: "sha256:" + strings.Repeat("1", 64), Digests: []string{"registry.k8s.io/pause@sha256:" + strings.Repeat("d", 64)}, Containers: 1},
		{Id: "sha256:" + strings.Repeat("2", 64), Tags: []string{"docker.io/library/a-name-that-is-long:latest"}, Size: 5e6},
		{Id: "sha256:" + strings.Repeat("3", 64)},
	}
	for width, want := range map[int]string{
		0: `
IMAGE                                ID             DISK USAGE   CONTENT SIZE   EXTRA
a-name-that-is-long:latest           222222222222          5MB             0B
registry.k8s.io/pause@sha256:dddddddddddd   111111111111           0B             0B   U
<untagged>                           333333333333           0B             0B
`,
		50: `
                                i Info →  U  In Use
IMAGE                  ID             DISK USAGE
a-name-that-is-long:latest
                       222222222222          5MB
registry.k8s.io/pause@sha256:dddddddddddd
                       111111111111           0B
<untagged>             333333333333           0B
`,
	} {
		var out strings.Builder
		v := newView(&out, images, nil, false)
		v.width = width
		v.arrange()
		if err := v.write(); err != nil {
			t.Fatal(err)
		}
		// Blanks between columns are not what this is about.
		if got, want := strings.Join(strings.Fields(out.String()), " "), strings.Join(strings.Fields(want), " "); got != want {
			t.Errorf("at %d:\n%s", width, out.String())
		}
		for _, line := range strings.Split(out.String(), "\n") {
			if width > 0 && len([]rune(line)) > width && !strings.Contains(line, "long") && !strings.Contains(line, "pause") {
				t.Errorf("%q is wider than %d", line, width)
			}
		}
	}
}
