// Package checkpoint writes and reads the archive of a container's checkpoint:
// a tar with the names that other runtimes and checkpointctl use.
//
//	config.dump        what the container was: names, image, times
//	spec.dump          its OCI runtime specification
//	checkpoint/        CRIU's images, regular files without folders
//	rootfs-diff.tar    what its writable layer holds, as an OCI layer
//
// # An archive is hostile
//
// Who may restore an archive need not be who wrote it. Nothing in it is
// configuration: config.dump and spec.dump are there to be compared with what
// the CRI request says (see Archive.Compare), and a restore never mounts,
// names, labels or tags anything by them. The reader takes the names above and
// no others; anything but regular files and the one folder is refused, and so
// are names that repeat. Entries and bytes have bounds.
//
// CRIU's images are not looked into. They are processes, with the capabilities
// and filters that are written there: a restore trusts who wrote them with that.
package checkpoint

import (
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The names in an archive.
const (
	ConfigName = "config.dump"
	SpecName   = "spec.dump"
	ImagesName = "checkpoint"
	RootfsName = "rootfs-diff.tar"
)

// Config is config.dump: what the container was. Fields that others write
// besides are ignored.
type Config struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Image is what the image was asked for by, ImageID the digest of its
	// configuration.
	Image   string `json:"rootfsImageName,omitempty"`
	ImageID string `json:"rootfsImageRef,omitempty"`
	// Runtime is the pod's runtime handler.
	Runtime        string    `json:"runtime,omitempty"`
	CreatedAt      time.Time `json:"createdTime"`
	CheckpointedAt time.Time `json:"checkpointedTime"`
}

// Archive is what Read learnt of an archive.
type Archive struct {
	Config Config
	Spec   *specs.Spec
	// Rootfs says that there is a rootfs-diff.tar.
	Rootfs bool
}

// Expected is what a restore's request says the container is.
type Expected struct {
	// Name is the container's.
	Name    string
	ImageID string
	// Process is what would run without a checkpoint.
	Process *specs.Process
}

// Compare fails with ErrInvalidArgument when the archive is of another
// container than the request describes.
func (a *Archive) Compare(want Expected) error {
	have := a.Spec.Process
	for _, field := range []struct {
		name       string
		have, want any
		same       bool
	}{
		{"name", a.Config.Name, want.Name, a.Config.Name == want.Name},
		{"image", a.Config.ImageID, want.ImageID, a.Config.ImageID == want.ImageID},
		{"command", have.Args, want.Process.Args, slices.Equal(have.Args, want.Process.Args)},
		{"environment", have.Env, want.Process.Env, sameSet(have.Env, want.Process.Env)},
		{"working directory", have.Cwd, want.Process.Cwd, have.Cwd == want.Process.Cwd},
		{"user", have.User.UID, want.Process.User.UID, have.User.UID == want.Process.User.UID},
		{"group", have.User.GID, want.Process.User.GID, have.User.GID == want.Process.User.GID},
		{"terminal", have.Terminal, want.Process.Terminal, have.Terminal == want.Process.Terminal},
	} {
		if !field.same {
			return fmt.Errorf("%s of the checkpoint is %.200q, of the request %.200q: %w",
				field.name, fmt.Sprint(field.have), fmt.Sprint(field.want), errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// sameSet compares without regard to the order.
func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}
