package imageservice

import (
	"testing"

	"github.com/containerd/errdefs"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

func TestPins(t *testing.T) {
	p, err := parsePins([]string{"busybox", "registry.k8s.io/pause:3.9", "quay.io/x/*", "nginx*", "*istio*", "k8s.gcr.io/a@sha256:0c9105b54ed92e85dab4dddb4495f539b32e299952f4b706b9fcba588980ad59"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"docker.io/library/busybox:latest": true, "docker.io/library/busybox:1": false, "registry.k8s.io/pause:3.9": true,
		"registry.k8s.io/pause:3.8": false, "quay.io/x/y:1": true, "docker.io/library/nginx:1": true, "docker.io/library/nginx-x:1": true,
		"docker.io/x/nginx:1": false, "gcr.io/istio-release/proxy:1": true,
		"k8s.gcr.io/a@sha256:0c9105b54ed92e85dab4dddb4495f539b32e299952f4b706b9fcba588980ad59": true,
	} {
		if got := p.match([]string{"other.io/x:1", name}); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	for _, bad := range []string{"", "*", "**", "a*b", "*a", "UPPER", "*a*b*"} {
		if _, err := parsePins([]string{bad}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestPinned: whatever way the name is spelt, and with each change of names.
func TestPinned(t *testing.T) {
	testenv.Root(t)
	reg := testenv.EmptyRegistry(t)
	push(t, reg.URL, "x", "latest", newTestImage(asGzip, tarOf("a=1")))
	s := openStore(t, Config{Pinned: []string{reg.Host + "/x", "mine"}})
	pinned := func(want bool) {
		t.Helper()
		list, err := s.Images(t.Context())
		if err != nil || len(list) != 1 || list[0].Pinned != want {
			t.Errorf("%+v, %v", list, err)
		}
	}
	if img := s.mustPull(t, reg.Host+"/x").Image; !img.Pinned {
		t.Error("not pinned when it was pulled")
	}
	pinned(true)
	s.close()
	s = reopenStore(t, s.root, Config{Pinned: []string{"mine"}})
	pinned(false)
	if err := s.Tag(t.Context(), reg.Host+"/x", "docker.io/library/mine"); err != nil {
		t.Fatal(err)
	}
	pinned(true)
	if err := s.SetPinned(nil); err != nil {
		t.Fatal(err)
	}
	pinned(false)
}
