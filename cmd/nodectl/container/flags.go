// Package container holds the commands of nodectl that are about containers,
// one file each.
package container

import (
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"
)

// createFlags are what run and create have in common.
type createFlags struct {
	name, pull, platform, cidfile string
	quiet, rm                     bool

	interactive, tty              bool
	env, envFile                  []string
	entrypoint, workdir, user     string
	groupAdd, labels, annotations []string
	hostname, domainname          string
	stopSignal                    string
	rootfs                        bool
	stopTimeout                   int

	volumes, mounts, tmpfs, devices []string

	volumesFrom, labelFiles, links  []string
	deviceRules, ulimits            []string
	gpus                            gpuFlag
	sysctls, logOptions, storageOpt []string
	isolation                       string
	attach                          []string
	uts, userns, cgroupns           string
	cgroupParent, runtime, restart  string
	shmSize, logDriver              string
	volumeDriver                    string
	init                            bool
	health                          healthFlags
	foreign                         foreignFlags
	limits                          limitFlags

	networkFlags
	privileged, readOnly bool
	capAdd, capDrop      []string
	securityOpt          []string
	pid, ipc             string
	oomScoreAdj          int64
	// cmd is whose flags they are.
	cmd *cobra.Command
}

// add adds the flags to a command.
func (f *createFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	f.addGeneral(flags)
	f.addProcess(flags)
	f.addMounts(flags)
	f.addNetwork(flags)
	f.addSecurity(flags)
	f.addLimits(flags)
	f.addFurther(flags)
	f.health.add(flags)
	f.cmd = cmd
}

func (f *createFlags) addGeneral(flags *pflag.FlagSet) {
	flags.StringVar(&f.name, "name", "", "Assign a name to the container")
	flags.StringVar(&f.pull, "pull", "missing", `Pull image before creating ("always", "missing", "never")`)
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "Suppress the pull output")
	flags.StringVar(&f.platform, "platform", "", "Set platform if server is multi-platform capable")
	flags.StringVar(&f.cidfile, "cidfile", "", "Write the container ID to the file")
	flags.BoolVar(&f.rootfs, "rootfs", false, "The first argument is no image but a folder of the host that is the root filesystem")
	flags.BoolVar(&f.rm, "rm", false, "Automatically remove the container when it exits")
	command.AddLabels(flags, &f.labels, "l", "Set meta data on a container")
	flags.StringArrayVar(&f.annotations, "annotation", nil, "Add an annotation to the container")
}

func (f *createFlags) addProcess(flags *pflag.FlagSet) {
	flags.BoolVarP(&f.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	flags.BoolVarP(&f.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "Set environment variables")
	flags.StringArrayVar(&f.envFile, "env-file", nil, "Read in a file of environment variables")
	flags.StringVar(&f.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	flags.StringVarP(&f.workdir, "workdir", "w", "", "Working directory inside the container")
	flags.StringVarP(&f.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	flags.StringArrayVar(&f.groupAdd, "group-add", nil, "Add additional groups to join")
	flags.StringVarP(&f.hostname, "hostname", "h", "", "Container host name")
	flags.StringVar(&f.domainname, "domainname", "", "Container NIS domain name")
	flags.StringVar(&f.stopSignal, "stop-signal", "", "Signal to stop the container")
	flags.IntVar(&f.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
}

func (f *createFlags) addMounts(flags *pflag.FlagSet) {
	flags.StringArrayVarP(&f.volumes, "volume", "v", nil, "Bind mount a volume")
	flags.StringArrayVar(&f.volumesFrom, "volumes-from", nil, "Mount volumes from the specified container(s)")
	flags.StringArrayVar(&f.mounts, "mount", nil, "Attach a filesystem mount to the container")
	flags.StringArrayVar(&f.tmpfs, "tmpfs", nil, "Mount a tmpfs directory")
	flags.StringArrayVar(&f.devices, "device", nil, "Add a host device to the container")
}

func (f *createFlags) addSecurity(flags *pflag.FlagSet) {
	flags.BoolVar(&f.privileged, "privileged", false, "Give extended privileges to this container")
	flags.BoolVar(&f.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	flags.StringArrayVar(&f.capAdd, "cap-add", nil, "Add Linux capabilities")
	flags.StringArrayVar(&f.capDrop, "cap-drop", nil, "Drop Linux capabilities")
	flags.StringArrayVar(&f.securityOpt, "security-opt", nil, "Security Options (seccomp, apparmor, no-new-privileges)")
	flags.StringVar(&f.pid, "pid", "", `PID namespace to use ("host", "container:NAME")`)
	flags.StringVar(&f.ipc, "ipc", "", `IPC mode to use ("private", "shareable", "none", "host", "container:NAME")`)
}

// request makes what is asked of the agent.
func (f *createFlags) request(image string, args []string, detached bool) (*nodev1.CreateRequest, error) {
	switch f.pull {
	case "always", "missing", "never", "":
	default:
		return nil, fmt.Errorf("invalid pull option: '%s': must be one of \"always\", \"missing\" or \"never\"", f.pull)
	}
	spec := &nodev1.ContainerSpec{
		Image: image, Command: args, WorkingDir: f.workdir, User: f.user, Hostname: f.hostname, Domainname: f.domainname,
		Stdin: f.interactive, StdinOnce: f.interactive && !f.tty && !detached, Tty: f.tty, Attach: f.attachedTo(detached),
		AutoRemove: f.rm, StopSignal: f.stopSignal, Platform: f.platform,
	}
	if f.rootfs {
		folder, err := filepath.Abs(image)
		if err != nil {
			return nil, err
		}
		spec.Image, spec.Rootfs = "", folder
	}
	if f.cmd.Flags().Changed("entrypoint") {
		spec.SetEntrypoint = true
		if f.entrypoint != "" {
			spec.Entrypoint = []string{f.entrypoint}
		}
	}
	if f.cmd.Flags().Changed("stop-timeout") {
		spec.StopTimeout = durationpb.New(time.Duration(f.stopTimeout) * time.Second)
	}
	for _, fill := range []func(*nodev1.ContainerSpec) error{
		f.fillProcess, f.fillMounts, f.fillNetwork, f.fillSecurity, f.fillLimits, f.fillFurther,
	} {
		if err := fill(spec); err != nil {
			return nil, err
		}
	}
	return &nodev1.CreateRequest{Name: f.name, Spec: spec}, nil
}

func (f *createFlags) fillProcess(spec *nodev1.ContainerSpec) error {
	var err error
	if spec.Env, err = environment(f.envFile, f.env); err != nil {
		return err
	}
	if spec.Labels, err = labels(f.labelFiles, f.labels); err != nil {
		return err
	}
	spec.Annotations = command.Pairs(f.annotations)
	for _, group := range f.groupAdd {
		gid, err := strconv.ParseInt(group, 10, 32)
		if err != nil || gid < 0 {
			spec.GroupNames = append(spec.GroupNames, group)
			continue
		}
		spec.Groups = append(spec.Groups, gid)
	}
	return nil
}
