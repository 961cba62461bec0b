package sandbox

import (
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/google/go-cmp/cmp"
)

// A root filesystem that is read for somebody else cannot be written to.
func TestReadOnlyMounts(t *testing.T) {
	overlay := mount.Mount{Type: "overlay", Source: "overlay", Options: []string{
		"index=off", "workdir=/9/work", "upperdir=/9/fs", "volatile", "lowerdir=/2/fs:/1/fs",
	}}
	bind := mount.Mount{Type: "bind", Source: "/9/fs", Options: []string{"rw", "rbind"}}
	below, uppers := readOnly([]mount.Mount{overlay, bind})
	want := []mount.Mount{
		{Type: "overlay", Source: "overlay", Options: []string{"index=off", "lowerdir=/9/fs:/2/fs:/1/fs", "ro"}},
		{Type: "bind", Source: "/9/fs", Options: []string{"rbind", "ro"}},
	}
	if diff := cmp.Diff(want, withUppers(below, uppers)); diff != "" {
		t.Error(diff)
	}
	if len(overlay.Options) != 5 || below[0].Options[1] != "lowerdir=/2/fs:/1/fs" {
		t.Errorf("what was given is changed: %v, %v", overlay.Options, below[0].Options)
	}
}
