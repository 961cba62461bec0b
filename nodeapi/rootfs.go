package nodeapi

import (
	"os"
	"path"

	"github.com/containerd/errdefs"
)

// checkRootfs refuses what cannot be a root filesystem.
func checkRootfs(folder string) error {
	if !path.IsAbs(folder) {
		return failf(errdefs.ErrInvalidArgument, "invalid root filesystem: '%s' is not an absolute path", folder)
	}
	st, err := os.Stat(folder)
	if err != nil {
		return failf(errdefs.ErrInvalidArgument, "invalid root filesystem: %v", err)
	}
	if !st.IsDir() {
		return failf(errdefs.ErrInvalidArgument, "invalid root filesystem: %s is not a directory", folder)
	}
	return nil
}
