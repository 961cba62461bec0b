package sandbox

import (
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/sandbox/account"
)

// checkContainer refuses what cannot be right whatever pod and image say.
func checkContainer(config *runtime.ContainerConfig) error {
	switch {
	case config == nil:
		return invalid("no container configuration")
	case config.GetMetadata().GetName() == "":
		return invalid("no container name")
	case config.GetImage().GetImage() == "":
		return invalid("no image")
	}
	sc := config.GetLinux().GetSecurityContext()
	if sc.GetRunAsGroup() != nil && sc.GetRunAsUser() == nil && sc.GetRunAsUsername() == "" {
		return invalid("run_as_group is set without run_as_user or run_as_username")
	}
	for _, mt := range config.GetMounts() {
		if err := checkMount(mt); err != nil {
			return err
		}
	}
	return nil
}

func checkMount(mt *runtime.Mount) error {
	switch {
	case !path.IsAbs(mt.GetContainerPath()):
		return invalid("mount: container path %q is not absolute", mt.GetContainerPath())
	case mt.GetImage().GetImage() != "" && mt.GetHostPath() != "":
		return invalid("mount on %s: both an image and a host path", mt.GetContainerPath())
	case mt.GetImage().GetImage() != "" || mt.GetImageSubPath() == "":
		return nil
	}
	return invalid("mount on %s: an image sub-path without an image", mt.GetContainerPath())
}

// logPath joins the pod's log directory and the container's log path, which
// stays below it. No log directory or no path is no log.
func logPath(directory, name string) (string, error) {
	if directory == "" || name == "" {
		return "", nil
	}
	if !filepath.IsLocal(name) {
		return "", invalid("log path %q leaves the log directory", name)
	}
	return filepath.Join(directory, name), nil
}

// resolveSource finds a mount's source on the host, links followed.
func resolveSource(mt *runtime.Mount) (string, error) {
	if !filepath.IsAbs(mt.GetHostPath()) {
		return "", invalid("mount on %s: host path %q is not absolute", mt.GetContainerPath(), mt.GetHostPath())
	}
	source, err := filepath.EvalSymlinks(mt.GetHostPath())
	if err != nil {
		return "", fmt.Errorf("mount on %s: host path %q: %w", mt.GetContainerPath(), mt.GetHostPath(), missing(err))
	}
	return source, nil
}

// missing gives a missing file its kind.
func missing(err error) error {
	if os.IsNotExist(err) {
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
			return "", err
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
	sc := config.GetLinux().GetSecurityContext()
	profile := sc.GetSeccomp()
	if sc.GetPrivileged() || profile.GetProfileType() != runtime.SecurityProfile_Localhost {
		return nil, nil
	}
	name := strings.TrimPrefix(profile.GetLocalhostRef(), "localhost/")
	if !filepath.IsAbs(name) {
		return nil, invalid("seccomp profile %q is not an absolute path", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", missing(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, invalid("seccomp profile %q is not a regular file", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSeccompProfile+1))
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	if len(data) > maxSeccompProfile {
		return nil, invalid("seccomp profile %q is larger than %d bytes", name, maxSeccompProfile)
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
