// Package spec turns a CRI container configuration, an image configuration
// and facts that the caller resolved into an OCI runtime specification. It is
// pure: it reads no file, makes no system call and keeps nothing that a
// caller could see; what it returns shares no memory with what it was given.
// The small packages below it (hostdevice, cdidevice) read the host for it.
//
// Every error of a configuration is of the kind errdefs.ErrInvalidArgument
// and names the field as CRI writes it, such as
// "linux.security_context.run_as_group"; what the host cannot do is
// errdefs.ErrFailedPrecondition, naming the field likewise.
//
// Image data is never taken as configuration: of an image only Env,
// Entrypoint, Cmd and WorkingDir are read.
package spec

import (
	"io/fs"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Input is everything that decides a specification. The zero value of each
// field but ID, Container, Pod and Rootfs is usable.
type Input struct {
	// ID is the container's ID.
	ID string
	// Container and Pod are the configurations as they came over CRI.
	// Neither may be nil; neither is changed.
	Container *runtime.ContainerConfig
	Pod       *runtime.PodSandboxConfig
	// Image is the image's configuration; nil is one that says nothing.
	Image *ocispec.Image
	// Rootfs is the absolute path of the mounted root filesystem.
	Rootfs string
	// User is whom the first process runs as, already looked up in the
	// image's passwd and group files, without the supplemental groups of
	// the configuration, which Build adds.
	User User
	// NamespacePaths says which namespaces the container gets: a path is
	// joined, an empty path is a new one, an absent type is the host's. The
	// mount namespace is always new and need not be named. A cgroup
	// namespace is decided by Build where the map is silent.
	NamespacePaths map[specs.LinuxNamespaceType]string
	// UIDMappings and GIDMappings are those of the pod's user namespace;
	// empty without one.
	UIDMappings, GIDMappings []specs.LinuxIDMapping
	// Mounts are those of the configuration with sources resolved: links
	// followed, image volumes turned into host paths (Image stays set, and
	// makes the mount read-only).
	Mounts []*runtime.Mount
	// CgroupsPath is passed on as it is: "/parent/id" for cgroupfs,
	// "slice:prefix:name" for systemd.
	CgroupsPath string
	// Files are bound over the container's, unless the configuration or
	// the caller mounts something there.
	Files Files
	// ShmPath is the pod's /dev/shm on the host. Empty gives the container
	// one of its own of 64 MiB.
	ShmPath string
	// Hostname is what the HOSTNAME variable says; empty takes the pod's.
	Hostname string
	// Host is what the host can do.
	Host Features
	// SeccompProfile is the content of the Localhost seccomp profile in
	// Docker's or the OCI's JSON; used only where the configuration names
	// such a profile.
	SeccompProfile []byte
	// Devices are those of the configuration, looked up on the host (see
	// hostdevice.Resolve); HostDevices are all of the host's /dev, used
	// only for a privileged container (see hostdevice.List).
	Devices, HostDevices []Device
	// NoMqueue says that the host has no /dev/mqueue to be bound.
	NoMqueue bool
	// NoHostDevices has a privileged container use no devices but Devices.
	NoHostDevices bool
	// Edit changes the specification after everything but the order of
	// mounts is in place, as CDI injection does (see cdidevice.Injector).
	// Nil changes nothing. It may do what it likes but touch capabilities,
	// namespaces, seccomp, or the paths of root and cgroup.
	Edit func(*specs.Spec) error
	// DefaultMasks masks the usual parts of /proc and /sys where the
	// configuration's lists are nil. kubelet always sends the lists, and an
	// empty one means procMount Unmasked, so this is for others' containers.
	DefaultMasks bool
	// Extra is what a person asks for beyond CRI; nil is nothing.
	Extra *Extra
	// PidsLimit limits tasks in the container; zero or less sets none.
	PidsLimit int64
	// SELinux are the labels to run with, decided by the caller from
	// linux.security_context.selinux_options; empty where SELinux is off.
	SELinux SELinuxLabels
}

// User is whom a process runs as inside the container.
type User struct {
	UID, GID       uint32
	AdditionalGids []uint32
	// Username and Home are informative: HOME is not set by Build, for the
	// user of an exec may be another.
	Username, Home string
}

// Files are host paths of the pod's generated files. An empty one is not mounted.
type Files struct {
	Hosts, Hostname, ResolvConf string
}

// SELinuxLabels are complete labels such as "system_u:system_r:container_t:s0:c1,c2".
type SELinuxLabels struct {
	Process, Mount string
}

// Device is a device node as found on the host.
type Device struct {
	// ContainerPath is where it appears; HostPath is where it was found.
	ContainerPath, HostPath string
	// Type is "c", "b" or "p".
	Type         string
	Major, Minor int64
	Mode         fs.FileMode
	UID, GID     uint32
	// Permissions is one or more of "r", "w" and "m".
	Permissions string
}

// CgroupMode is how the host mounts cgroups.
type CgroupMode string

// The modes, as cgroups.Mode has them.
const (
	CgroupV1     CgroupMode = "v1"
	CgroupHybrid CgroupMode = "hybrid"
	CgroupV2     CgroupMode = "v2"
)

// Features is what the host can do. The zero value is a host with cgroup v1
// and nothing else, which refuses what it was asked for and lacks.
type Features struct {
	Cgroups CgroupMode
	// AppArmor and SELinux say that the security module is on.
	AppArmor, SELinux bool
	// AppArmorDefault is the profile that RuntimeDefault means; empty is none.
	AppArmorDefault string
	// Seccomp says that the kernel and libcontainer filter system calls.
	Seccomp bool
	// Swap says that swap is accounted to cgroups.
	Swap bool
	// HugeTLB says that the hugetlb controller is there.
	HugeTLB bool
	// RecursiveReadOnly (mount_setattr, kernel 5.12) and IDMap (idmapped
	// mounts, kernel 5.12) are needed by mounts that ask for them.
	RecursiveReadOnly, IDMap bool
	// Capabilities are all the host knows, such as "CAP_CHOWN"; nil means
	// those up to CAP_CHECKPOINT_RESTORE (kernel 5.9).
	Capabilities []string
}

// ExecOptions asks for one more process in a container.
type ExecOptions struct {
	// Args is the command; it must not be empty.
	Args []string
	// Env, as "NAME=value", is added to and overrides the container's; NAME
	// alone takes the container's away.
	Env []string
	// Cwd is absolute; empty means the container's.
	Cwd string
	// User is put in place of the container's; nil means the container's.
	User *User
	// Terminal asks for a terminal; Height and Width are its size in
	// characters and may be zero.
	Terminal      bool
	Height, Width uint16
	// Privileged gives all of the host's capabilities (Capabilities, as
	// Features has them) and clears no_new_privs.
	Privileged   bool
	Capabilities []string
}
