// Package imageservice pulls, keeps and removes images: content store,
// registry access, unpacking into snapshots, and garbage collection.
//
// Errors are of the kinds of containerd/errdefs: ErrNotFound,
// ErrInvalidArgument for a reference that does not parse, ErrUnavailable for
// a registry that does not answer, ErrUnauthenticated and ErrPermissionDenied
// for credentials, ErrDataLoss for content that does not match its digest.
package imageservice

import (
	"context"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is what is known of a local image. It is a copy.
type Image struct {
	// ID is the digest of the image's configuration, "sha256:…".
	ID string
	// Tags are the normalised references with a tag ("docker.io/library/x:y"),
	// Digests those with a manifest digest ("docker.io/library/x@sha256:…").
	Tags, Digests []string
	// Size is what the image takes: the layers unpacked, in bytes.
	Size int64
	// ContentSize is the compressed size of the content, in bytes.
	ContentSize int64
	// ChainID names the snapshot of the topmost layer; empty for an image
	// without layers.
	ChainID string
	// Manifest is the digest of the platform's manifest.
	Manifest string
	// Config is the image's configuration.
	Config *ocispec.Image
	// Pinned images are never collected.
	Pinned   bool
	PulledAt time.Time
}

// Auth is what a client sent to authenticate with; the zero value means
// anonymous, or what the host's configuration has.
type Auth struct {
	Username, Password string
	// Auth is base64 of "user:password", as in docker's config.json.
	Auth          string
	ServerAddress string
	IdentityToken string
	RegistryToken string
}

// PullRequest asks for an image.
type PullRequest struct {
	// Ref is any form docker takes.
	Ref  string
	Auth Auth
	// Platform such as "linux/arm64"; empty means the host's.
	Platform string
	// Snapshotter names another snapshotter; empty means the default.
	Snapshotter string
	// Progress, when not nil, is called from one goroutine at a time with
	// each change; it must not block.
	Progress func(Progress)
}

// Progress tells how far one layer or document is.
type Progress struct {
	// Digest is the blob's; Status is docker's word: "Pulling fs layer",
	// "Downloading", "Extracting", "Pull complete", "Already exists".
	Digest, Status string
	// Current and Total are bytes; Total is zero when not known.
	Current, Total int64
}

// PullUnderWay is a transfer that has not ended.
type PullUnderWay struct {
	// Ref is normalised.
	Ref, Platform string
	StartedAt     time.Time
	// Waiters is how many callers share it.
	Waiters int
	// Layers are those that were told of, in the image's order.
	Layers []Progress
}

// PullResult is a finished pull.
type PullResult struct {
	Image Image
	// Digest is that of what the reference names: the index's or manifest's.
	Digest string
	// New is false when nothing had to be fetched.
	New bool
}

// FilesystemUsage is what a folder of ours takes.
type FilesystemUsage struct {
	At         time.Time
	Mountpoint string
	Bytes      uint64
	Inodes     uint64
}

// InUse tells which images and snapshots containers need. The sandbox package
// satisfies it; imageservice asks it before it removes anything.
type InUse interface {
	// ImagesInUse returns the image IDs of all containers.
	ImagesInUse() map[string]bool
}

// Service is what this package offers, written down in one place: *Store has
// these methods, and who uses them declares the part it needs. References may
// be image IDs, unique ID prefixes, tags or digests.
type Service interface {
	Pull(ctx context.Context, req PullRequest) (PullResult, error)
	// Image fails with ErrNotFound when there is none.
	Image(ctx context.Context, ref string) (Image, error)
	Images(ctx context.Context) ([]Image, error)
	// Remove removes the image with all its tags, whichever of them or ID
	// is given, as CRI wants it. An unknown one is not an error.
	Remove(ctx context.Context, ref string) error
	// Untag removes one reference, and the image with its last one, as
	// docker does. It returns what was untagged and which IDs went.
	Untag(ctx context.Context, ref string, force bool) (untagged, deleted []string, err error)
	Tag(ctx context.Context, ref, newRef string) error
	FilesystemUsage(ctx context.Context) (FilesystemUsage, error)
}

var _ Service = (*Store)(nil)
