package cri

import (
	"strconv"
	"strings"

	"github.com/nodeagent/nodeagent/imageservice"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// imageItem is an image as CRI has it.
func imageItem(img *imageservice.Image) *runtime.Image {
	item := &runtime.Image{
		Id:          img.ID,
		RepoTags:    img.Tags,
		RepoDigests: img.Digests,
		Size:        uint64(max(img.Size, 0)),
		Pinned:      img.Pinned,
	}
	if img.Config != nil {
		item.Uid, item.Username = imageUser(img.Config.Config.User)
	}
	return item
}

// imageUser splits an image's USER, "user[:group]", into a number or a name.
// A number that is no user ID of Linux is handed on as a name, so that
// kubelet's runAsNonRoot refuses it.
func imageUser(user string) (*runtime.Int64Value, string) {
	user, _, _ = strings.Cut(user, ":")
	if user == "" {
		return nil, ""
	}
	uid, err := strconv.ParseUint(user, 10, 31)
	if err != nil {
		return nil, user
	}
	return &runtime.Int64Value{Value: int64(uid)}, ""
}

// filesystem is the usage of a folder as CRI has it.
func filesystem(usage imageservice.FilesystemUsage) *runtime.FilesystemUsage {
	return &runtime.FilesystemUsage{
		Timestamp:  nanos(usage.At),
		FsId:       &runtime.FilesystemIdentifier{Mountpoint: usage.Mountpoint},
		UsedBytes:  &runtime.UInt64Value{Value: usage.Bytes},
		InodesUsed: &runtime.UInt64Value{Value: usage.Inodes},
	}
}
