package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/sandbox/account"
	"github.com/nodeagent/nodeagent/sandbox/spec"
)

// checkContainer refuses what cannot be right whatever pod and image say.
// A folder stands for the image.
func checkContainer(config *runtime.ContainerConfig, folder string) error {
	switch {
	case config == nil:
		return invalid("config", "is missing")
	case config.GetMetadata().GetName() == "":
		return invalid("metadata.name", "is missing")
	case folder != "" && !filepath.IsAbs(folder):
		return invalid("root filesystem", "%.300q is not absolute", folder)
	case folder == "" && config.GetImage().GetImage() == "":
		return invalid("image.image", "is missing")
	}
	if err := checkName("metadata.name", config.GetMetadata().GetName()); err != nil {
		return err
	}
	if err := spec.ValidateUser(config.GetLinux().GetSecurityContext()); err != nil {
		return err
	}
	for i, mt := range config.GetMounts() {
		if err := checkMount(fmt.Sprintf("mounts[%d].", i), mt); err != nil {
			return err
		}
	}
	return nil
}

// checkMount checks what is needed to look for the source; the rest is for the
// specification.
func checkMount(field string, mt *runtime.Mount) error {
	image := mt.GetImage().GetImage() != ""
	switch {
	case !spec.ValidPath(mt.GetContainerPath()):
		return invalid(field+"container_path", "%.300q is not an absolute path", mt.GetContainerPath())
	case image && mt.GetHostPath() != "":
		return invalid(field+"host_path", "is given beside an image")
	case !image && mt.GetImageSubPath() != "":
		return invalid(field+"image_sub_path", "is given without an image")
	case image && !spec.ValidPath("/"+mt.GetImageSubPath()):
		return invalid(field+"image_sub_path", "%.300q is not a path", mt.GetImageSubPath())
	case !image && !spec.ValidPath(mt.GetHostPath()):
		return invalid(field+"host_path", "%.300q is not an absolute path", mt.GetHostPath())
	}
	return nil
}

// logPath joins the pod's log directory and the container's log path, which
// stays below it. No log directory or no path is no log.
func logPath(directory, name string) (string, error) {
	if directory == "" || name == "" {
		return "", nil
	}
	if !filepath.IsLocal(name) || !spec.ValidPath("/"+name) {
		return "", invalid("log_path", "%.300q is not a path below the log directory", name)
	}
	return filepath.Join(directory, name), nil
}

// resolveSource finds a mount's source on the host, links followed.
func resolveSource(field string, mt *runtime.Mount) (string, error) {
	source, err := filepath.EvalSymlinks(mt.GetHostPath())
	if err == nil {
		return source, nil
	}
	var at *os.PathError
	if errors.As(err, &at) && at.Path == mt.GetHostPath() {
		err = at.Err // a link's target is worth telling, the path itself is not
	}
	return "", fmt.Errorf("%shost_path: %s: %w", field, mt.GetHostPath(), missing(err))
}

// missing gives a missing file its kind, also one looked for below a file.
func missing(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}

// userQuery says whom the container runs as; the image has a say only where
// the configuration has none.
func userQuery(config *runtime.ContainerConfig, image *ocispec.Image) account.Query {
	sc := config.GetLinux().GetSecurityContext()
	q := account.Query{
		Name:   sc.GetRunAsUsername(),
		Strict: sc.GetSupplementalGroupsPolicy() == runtime.SupplementalGroupsPolicy_Strict,
	}
	if v := sc.GetRunAsUser(); v != nil {
		q.UID = &v.Value
	}
	if v := sc.GetRunAsGroup(); v != nil {
		q.GID = &v.Value
	}
	if q.UID == nil && q.Name == "" && image != nil {
		q.Name = image.Config.User
	}
	return q
}

// stopSignal is the configuration's, or the image's, or SIGTERM. An image
// that names no known signal is as one that names none.
func stopSignal(config *runtime.ContainerConfig, image *ocispec.Image) (string, error) {
	if s := config.GetStopSignal(); s != runtime.Signal_SIGNAL_RUNTIME_DEFAULT {
		name := strings.TrimPrefix(s.String(), "SIGNAL_")
		if _, err := parseSignal(name); err != nil {
			return "", invalid("stop_signal", "%s is unknown", s)
		}
		return name, nil
	}
	if image != nil && image.Config.StopSignal != "" {
		if sig, err := parseSignal(image.Config.StopSignal); err == nil {
			return signalName(sig), nil
		}
	}
	return "SIGTERM", nil
}

// maxSeccompProfile bounds a profile's file, in bytes.
const maxSeccompProfile = 1 << 20

// seccompProfile reads the profile file that the configuration names; nil
// when it names none.
func seccompProfile(config *runtime.ContainerConfig) ([]byte, error) {
	const field = "linux.security_context.seccomp.localhost_ref"
	name, err := spec.SeccompProfilePath(config.GetLinux().GetSecurityContext())
	if err != nil || name == "" {
		return nil, err
	}
	// A pipe must not hold the caller up.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, missing(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, invalid(field, "%.300q is not a regular file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSeccompProfile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	if len(data) > maxSeccompProfile {
		return nil, invalid(field, "%.300q is larger than %d bytes", name, maxSeccompProfile)
	}
	return data, nil
}

// containerUser is what CRI tells of the user; gids are all groups but the
// primary one.
func containerUser(uid, gid uint32, gids []uint32) *runtime.ContainerUser {
	groups := []int64{int64(gid)}
	for _, g := range gids {
		if !slices.Contains(groups, int64(g)) {
			groups = append(groups, int64(g))
		}
	}
	return &runtime.ContainerUser{Linux: &runtime.LinuxContainerUser{
		Uid: int64(uid), Gid: int64(gid), SupplementalGroups: groups,
	}}
}
