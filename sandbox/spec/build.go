package spec

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// builder is one run of Build.
type builder struct {
	in   *Input
	cfg  *runtime.ContainerConfig
	sec  *runtime.LinuxContainerSecurityContext
	spec *specs.Spec
	// privileged and userns are asked so often that they have a name.
	privileged, userns bool
}

// buildSteps are run in order; each may rely on those before it: seccomp
// reads the capabilities, cgroups' rules need the devices, and whoever edits
// last may add mounts that then take part in the ordering.
var buildSteps = []struct {
	name string
	run  func(*builder) error
}{
	{"process", (*builder).process},
	{"user", (*builder).user},
	{"capabilities", (*builder).capabilities},
	{"namespaces", (*builder).namespaces},
	{"mounts", (*builder).mounts},
	{"paths", (*builder).paths},
	{"devices", (*builder).devices},
	{"resources", (*builder).resources},
	{"extra", (*builder).extra},
	{"seccomp", (*builder).seccomp},
	{"modules", (*builder).modules},
	{"annotations", (*builder).annotations},
	{"edit", (*builder).edit},
	{"order", (*builder).order},
}

// Build gives the specification of a container. A nil error means that it is
// complete; it shares no memory with the input.
func Build(in Input) (*specs.Spec, error) {
	b, err := newBuilder(&in)
	if err != nil {
		return nil, err
	}
	for _, step := range buildSteps {
		if err := step.run(b); err != nil {
			return nil, err
		}
	}
	return b.spec, nil
}

func newBuilder(in *Input) (*builder, error) {
	switch {
	case in.ID == "":
		return nil, invalid("id", "is empty")
	case in.Container == nil:
		return nil, invalid("config", "is missing")
	case in.Pod == nil:
		return nil, invalid("sandbox_config", "is missing")
	case !path.IsAbs(in.Rootfs) || strings.ContainsRune(in.Rootfs, 0):
		return nil, invalid("rootfs", "%q is not an absolute path", in.Rootfs)
	}
	b := &builder{
		in:  in,
		cfg: in.Container,
		sec: in.Container.GetLinux().GetSecurityContext(),
	}
	b.privileged = b.sec.GetPrivileged()
	if b.privileged && !in.Pod.GetLinux().GetSecurityContext().GetPrivileged() {
		return nil, invalid("linux.security_context.privileged", "the pod was not made for privileged containers")
	}
	_, b.userns = in.NamespacePaths[specs.UserNamespace]
	b.spec = &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{},
		Root:    &specs.Root{Path: in.Rootfs, Readonly: b.sec.GetReadonlyRootfs()},
		Linux:   &specs.Linux{CgroupsPath: in.CgroupsPath},
	}
	if slices.Contains(strings.Split(in.CgroupsPath, "/"), "..") {
		return nil, invalid("linux.cgroup_parent", "%q contains ..", in.CgroupsPath)
	}
	return b, nil
}

// edit lets the caller's edit change the specification.
func (b *builder) edit() error {
	if b.in.Edit == nil {
		return nil
	}
	if err := b.in.Edit(b.spec); err != nil {
		return fmt.Errorf("edit the specification of container %s: %w", b.in.ID, err)
	}
	return nil
}

// user sets whom the process runs as and its groups.
func (b *builder) user() error {
	if err := ValidateUser(b.sec); err != nil {
		return err
	}
	u := b.in.User
	// The primary group belongs to the supplemental ones too: a process
	// that gives up its primary group must not thereby get round a denial
	// for that group (CVE-2023-25173).
	gids := append([]uint32{u.GID}, u.AdditionalGids...)
	for _, g := range b.sec.GetSupplementalGroups() {
		gids = append(gids, uint32(g))
	}
	b.spec.Process.User = specs.User{UID: u.UID, GID: u.GID, AdditionalGids: dedupe(gids)}
	if !b.userns {
		return nil
	}
	if len(b.in.UIDMappings) > 0 && !mapped(b.in.UIDMappings, u.UID) {
		return invalid("linux.security_context.run_as_user", "user %d is not mapped in the pod's user namespace", u.UID)
	}
	for _, g := range b.spec.Process.User.AdditionalGids {
		if len(b.in.GIDMappings) > 0 && !mapped(b.in.GIDMappings, g) {
			return invalid("linux.security_context.supplemental_groups", "group %d is not mapped in the pod's user namespace", g)
		}
	}
	return nil
}

// maxID is the largest user or group ID that a configuration may name:
// larger ones have wrapped to 0 elsewhere (CVE-2024-40635).
const maxID = math.MaxInt32

// ValidateUser checks the fields of a security context that say whom to run
// as. A nil context is right.
func ValidateUser(sec *runtime.LinuxContainerSecurityContext) error {
	const prefix = "linux.security_context."
	uid, gid := sec.GetRunAsUser(), sec.GetRunAsGroup()
	switch {
	case gid != nil && uid == nil && sec.GetRunAsUsername() == "":
		return invalid(prefix+"run_as_group", "is set without a user")
	case uid != nil && sec.GetRunAsUsername() != "":
		return invalid(prefix+"run_as_username", "is set together with run_as_user")
	case uid != nil && (uid.GetValue() < 0 || uid.GetValue() > maxID):
		return invalid(prefix+"run_as_user", "%d is not in 0-%d", uid.GetValue(), maxID)
	case gid != nil && (gid.GetValue() < 0 || gid.GetValue() > maxID):
		return invalid(prefix+"run_as_group", "%d is not in 0-%d", gid.GetValue(), maxID)
	}
	for i, g := range sec.GetSupplementalGroups() {
		if g < 0 || g > maxID {
			return invalid(fmt.Sprintf("%ssupplemental_groups[%d]", prefix, i), "%d is not in 0-%d", g, maxID)
		}
	}
	if _, known := runtime.SupplementalGroupsPolicy_name[int32(sec.GetSupplementalGroupsPolicy())]; !known {
		return invalid(prefix+"supplemental_groups_policy", "%d is unknown", sec.GetSupplementalGroupsPolicy())
	}
	return nil
}

// annotations passes the container's own on, byte for byte. Those by which a
// runtime is steered are left out: an annotation is data of whoever made the
// pod and decides nothing here (CVE-2024-3154).
func (b *builder) annotations() error {
	for k, v := range b.cfg.GetAnnotations() {
		if steers(k) {
			continue
		}
		if b.spec.Annotations == nil {
			b.spec.Annotations = make(map[string]string, len(b.cfg.GetAnnotations()))
		}
		b.spec.Annotations[k] = v
	}
	return nil
}

// steers tells whether libcontainer acts upon an annotation: it makes systemd
// properties and CRIU options of some, and keeps them all as "key=value"
// labels, where "bundle" has a meaning of its own.
func steers(key string) bool {
	return strings.HasPrefix(key, "org.systemd.property.") ||
		strings.HasPrefix(key, "org.criu.") ||
		strings.HasPrefix(key, "run.oci.") ||
		strings.Contains(key, "=") || key == "bundle" || key == ""
}

// dedupe keeps the first of each value.
func dedupe(ids []uint32) []uint32 {
	out := make([]uint32, 0, len(ids))
	seen := make(map[uint32]struct{}, len(ids))
	for _, id := range ids {
		if _, dup := seen[id]; !dup {
			seen[id] = struct{}{}
			out = append(out, id)
		}
	}
	return out
}

// invalid is an error of a configuration's field.
func invalid(field, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", field, fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}

// unsupported is an error of a field that this host cannot honour.
func unsupported(field, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", field, fmt.Sprintf(format, args...), errdefs.ErrFailedPrecondition)
}
