package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxSeccompProfile bounds a Localhost profile: the default one has 12 KB.
const maxSeccompProfile = 1 << 20

// deprecated profile names.
const (
	profileDefault    = "runtime/default"
	profileDocker     = "docker/default"
	profileUnconfined = "unconfined"
	profileLocalhost  = "localhost/"
)

// SeccompProfilePath gives the host path of the Localhost seccomp profile that
// a security context names; empty means that it names none. The caller reads
// it, at most 1 MiB, into Input.SeccompProfile.
func SeccompProfilePath(sec *runtime.LinuxContainerSecurityContext) (string, error) {
	field, profile, err := seccompProfile(sec)
	if err != nil || sec.GetPrivileged() || profile.GetProfileType() != runtime.SecurityProfile_Localhost {
		return "", err
	}
	if !ValidPath(profile.GetLocalhostRef()) {
		return "", invalid(field, "%.300q is not an absolute path", profile.GetLocalhostRef())
	}
	return path.Clean(profile.GetLocalhostRef()), nil
}

// seccompProfile gives the profile asked for, in the old way or the new.
// Neither way means unconfined.
func seccompProfile(sec *runtime.LinuxContainerSecurityContext) (field string, _ *runtime.SecurityProfile, err error) {
	if p := sec.GetSeccomp(); p != nil {
		field = "linux.security_context.seccomp"
		if err := checkProfile(field, p); err != nil {
			return "", nil, err
		}
		return field + ".localhost_ref", p, nil
	}
	field = "linux.security_context.seccomp_profile_path"
	p, err := deprecatedProfile(field, sec.GetSeccompProfilePath()) //nolint:staticcheck // crictl and old kubelets send it
	if p == nil {
		p = &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Unconfined}
	}
	return field, p, err
}

// deprecatedProfile reads a profile written as one string; nil means none.
func deprecatedProfile(field, s string) (*runtime.SecurityProfile, error) {
	switch {
	case s == "":
		return nil, nil
	case s == profileDefault, s == profileDocker:
		return &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_RuntimeDefault}, nil
	case s == profileUnconfined:
		return &runtime.SecurityProfile{ProfileType: runtime.SecurityProfile_Unconfined}, nil
	case strings.HasPrefix(s, profileLocalhost) && len(s) > len(profileLocalhost):
		return &runtime.SecurityProfile{
			ProfileType:  runtime.SecurityProfile_Localhost,
			LocalhostRef: strings.TrimPrefix(s, profileLocalhost),
		}, nil
	}
	return nil, invalid(field, "%.300q is not %s, %s or %sNAME", s, profileDefault, profileUnconfined, profileLocalhost)
}

func checkProfile(field string, p *runtime.SecurityProfile) error {
	if _, known := runtime.SecurityProfile_ProfileType_name[int32(p.GetProfileType())]; !known {
		return invalid(field+".profile_type", "%d is unknown", p.GetProfileType())
	}
	localhost := p.GetProfileType() == runtime.SecurityProfile_Localhost
	if localhost && p.GetLocalhostRef() == "" {
		return invalid(field+".localhost_ref", "is empty")
	}
	if !localhost && p.GetLocalhostRef() != "" {
		return invalid(field+".localhost_ref", "is set with profile type %s", p.GetProfileType())
	}
	return nil
}

// seccomp sets the system call filter. It needs the capabilities, on which
// profiles depend.
func (b *builder) seccomp() error {
	field, profile, err := seccompProfile(b.sec)
	if err != nil {
		return err
	}
	if b.privileged || profile.GetProfileType() == runtime.SecurityProfile_Unconfined {
		return nil
	}
	if !b.in.Host.Seccomp {
		return unsupported("linux.security_context.seccomp", "this host does not filter system calls")
	}
	if profile.GetProfileType() == runtime.SecurityProfile_RuntimeDefault {
		b.spec.Linux.Seccomp, err = seccomp.GetDefaultProfile(b.spec)
		if err != nil {
			return fmt.Errorf("make the default seccomp profile: %w", err)
		}
		return nil
	}
	if _, err := SeccompProfilePath(b.sec); err != nil {
		return err
	}
	if n := len(b.in.SeccompProfile); n == 0 || n > maxSeccompProfile {
		return invalid(field, "profile %s has %d bytes", profile.GetLocalhostRef(), n)
	}
	filter, err := seccomp.LoadProfile(string(b.in.SeccompProfile), b.spec)
	if err != nil {
		return invalid(field, "profile %s: %v", profile.GetLocalhostRef(), err)
	}
	// A profile without rules would quietly mean no filter at all.
	if filter == nil || filter.DefaultAction == "" {
		return invalid(field, "profile %s has no default action", profile.GetLocalhostRef())
	}
	if action := unknownAction(filter); action != "" {
		return invalid(field, "profile %s has an unknown action %.100q", profile.GetLocalhostRef(), action)
	}
	b.spec.Linux.Seccomp = filter
	return nil
}

// seccompActions are those of the OCI's specification.
var seccompActions = []specs.LinuxSeccompAction{
	specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActErrno, specs.ActTrace, specs.ActAllow, specs.ActLog, specs.ActNotify,
}

// unknownAction gives an action of a filter that there is none; empty when all are
// known.
func unknownAction(filter *specs.LinuxSeccomp) specs.LinuxSeccompAction {
	if !slices.Contains(seccompActions, filter.DefaultAction) {
		return filter.DefaultAction
	}
	for _, call := range filter.Syscalls {
		if !slices.Contains(seccompActions, call.Action) {
			return call.Action
		}
	}
	return ""
}

// ValidateSandboxSecurity checks the security context of a pod, which its
// containers may lean on. A nil one is right.
func ValidateSandboxSecurity(sec *runtime.LinuxSandboxSecurityContext) error {
	as := &runtime.LinuxContainerSecurityContext{
		RunAsUser: sec.GetRunAsUser(), RunAsGroup: sec.GetRunAsGroup(),
		SupplementalGroups: sec.GetSupplementalGroups(), SupplementalGroupsPolicy: sec.GetSupplementalGroupsPolicy(),
		Seccomp: sec.GetSeccomp(), SeccompProfilePath: sec.GetSeccompProfilePath(), //nolint:staticcheck // crictl and old kubelets send it
		SelinuxOptions: sec.GetSelinuxOptions(),
	}
	if err := ValidateUser(as); err != nil {
		return err
	}
	if _, err := SeccompProfilePath(as); err != nil {
		return err
	}
	if p := sec.GetApparmor(); p != nil {
		if err := checkProfile("linux.security_context.apparmor", p); err != nil {
			return err
		}
	}
	return checkSELinux(as.SelinuxOptions)
}

// checkSELinux refuses options that are no part of a label. Where SELinux is
// off they have no effect, as everywhere: manifests name them for all nodes.
func checkSELinux(options *runtime.SELinuxOption) error {
	for _, part := range []struct{ field, value string }{
		{"user", options.GetUser()}, {"role", options.GetRole()}, {"type", options.GetType()}, {"level", options.GetLevel()},
	} {
		if len(part.value) > maxName || strings.ContainsFunc(part.value, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '"' }) {
			return invalid("linux.security_context.selinux_options."+part.field, "%.300q is no part of a label", part.value)
		}
	}
	return nil
}

// modules sets what the security modules go by.
func (b *builder) modules() error {
	if err := b.apparmor(); err != nil {
		return err
	}
	options, l := b.sec.GetSelinuxOptions(), b.in.SELinux
	if err := checkSELinux(options); err != nil {
		return err
	}
	if b.in.Host.SELinux && proto.Size(options) > 0 && l == (SELinuxLabels{}) {
		return unsupported("linux.security_context.selinux_options", "no labels are set on this host")
	}
	if !b.in.Host.SELinux && l != (SELinuxLabels{}) {
		return unsupported("linux.security_context.selinux_options", "SELinux is off on this host")
	}
	for _, label := range []string{l.Process, l.Mount} {
		if strings.ContainsAny(label, "\x00\n\"") {
			return invalid("linux.security_context.selinux_options", "%.300q is not a label", label)
		}
	}
	b.spec.Linux.MountLabel = l.Mount
	if !b.privileged {
		b.spec.Process.SelinuxLabel = l.Process
	}
	return nil
}

func (b *builder) apparmor() error {
	field, profile := "linux.security_context.apparmor", b.sec.GetApparmor()
	if profile != nil {
		if err := checkProfile(field, profile); err != nil {
			return err
		}
	} else {
		field = "linux.security_context.apparmor_profile"
		var err error
		old := b.sec.GetApparmorProfile() //nolint:staticcheck // crictl and old kubelets send it
		if profile, err = deprecatedProfile(field, old); err != nil {
			return err
		}
		// In the old way it meant the same as saying nothing.
		if profile.GetProfileType() == runtime.SecurityProfile_RuntimeDefault {
			profile = nil
		}
	}
	if b.privileged {
		return nil
	}
	if profile == nil {
		if b.in.Host.AppArmor {
			b.spec.Process.ApparmorProfile = b.in.Host.AppArmorDefault
		}
		return nil
	}
	return b.apparmorProfile(field, profile)
}

func (b *builder) apparmorProfile(field string, profile *runtime.SecurityProfile) error {
	kind := profile.GetProfileType()
	if kind == runtime.SecurityProfile_Unconfined {
		if b.in.Host.AppArmor {
			b.spec.Process.ApparmorProfile = profileUnconfined
		}
		return nil
	}
	if !b.in.Host.AppArmor {
		return unsupported(field, "AppArmor is off on this host")
	}
	if kind == runtime.SecurityProfile_RuntimeDefault {
		b.spec.Process.ApparmorProfile = b.in.Host.AppArmorDefault
		return nil
	}
	name := strings.TrimPrefix(profile.GetLocalhostRef(), profileLocalhost)
	if name == "" || strings.ContainsAny(name, "\x00\n") {
		return invalid(field, "%.300q is not a profile's name", profile.GetLocalhostRef())
	}
	b.spec.Process.ApparmorProfile = name
	return nil
}
