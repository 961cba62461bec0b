package container

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/pflag"
)

// runtimes are the names of the only runtime there is.
var runtimes = []string{"", "runc", "io.containerd.runc.v2"}

func (f *createFlags) addFurther(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.labelFiles, "label-file", nil, "Read in a line delimited file of labels")
	flags.StringArrayVar(&f.links, "link", nil, "Add link to another container")
	flags.StringArrayVar(&f.deviceRules, "device-cgroup-rule", nil, "Add a rule to the cgroup allowed devices list")
	flags.Var(&f.gpus, "gpus", "GPU devices to add to the container ('all' to pass all GPUs)")
	flags.StringArrayVar(&f.ulimits, "ulimit", nil, "Ulimit options")
	flags.StringArrayVar(&f.sysctls, "sysctl", nil, "Sysctl options")
	flags.StringVar(&f.logDriver, "log-driver", "", `Logging driver for the container ("json-file", "local", "none")`)
	flags.StringArrayVar(&f.logOptions, "log-opt", nil, "Log driver options")
	flags.StringArrayVar(&f.storageOpt, "storage-opt", nil, "Storage driver options for the container")
	flags.StringVar(&f.isolation, "isolation", "", "Container isolation technology")
	flags.StringArrayVarP(&f.attach, "attach", "a", nil, "Attach to STDIN, STDOUT or STDERR")
	flags.StringVar(&f.uts, "uts", "", `UTS namespace to use ("host")`)
	flags.StringVar(&f.userns, "userns", "", `User namespace to use ("host", "private", "auto[:size=N]")`)
	flags.StringVar(&f.cgroupns, "cgroupns", "", `Cgroup namespace to use ("host", "private")`)
	flags.StringVar(&f.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	flags.StringVar(&f.runtime, "runtime", "", `Runtime to use for this container ("runc")`)
	flags.StringVar(&f.restart, "restart", "no", "Restart policy to apply when a container exits")
	flags.StringVar(&f.shmSize, "shm-size", "", "Size of /dev/shm")
	flags.StringVar(&f.volumeDriver, "volume-driver", "", `Optional volume driver for the container ("local")`)
	flags.Bool("disable-content-trust", true, "Skip image verification")
	_ = flags.MarkHidden("disable-content-trust") // fails for an unknown flag only
	f.foreign.add(flags)
	flags.BoolVar(&f.init, "init", false, "Run an init inside the container that reaps processes")
}

func (f *createFlags) fillFurther(spec *nodev1.ContainerSpec) error {
	if len(f.storageOpt) > 0 {
		return errors.New("--storage-opt is not supported: the size of a container's layer cannot be limited here")
	}
	if f.isolation != "" && f.isolation != "default" {
		return fmt.Errorf("invalid isolation '%s' on linux", f.isolation)
	}
	if !slices.Contains(runtimes, f.runtime) {
		return fmt.Errorf("unknown or invalid runtime name: %s", f.runtime)
	}
	spec.Links, spec.DeviceRules, spec.VolumesFrom = f.links, f.deviceRules, f.volumesFrom
	spec.CgroupParent, spec.Init, spec.Sysctls = f.cgroupParent, f.init, command.Pairs(f.sysctls)
	if err := f.checkSysctls(); err != nil {
		return err
	}
	if err := f.foreign.check(); err != nil {
		return err
	}
	var err error
	if spec.Restart, err = parseRestart(f.restart); err != nil {
		return err
	}
	if f.rm && spec.GetRestart() != nil {
		return errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	if spec.Health, err = f.health.check(); err != nil {
		return err
	}
	if f.logDriver != "" || len(f.logOptions) > 0 {
		spec.Log = &nodev1.Log{Driver: f.logDriver, Options: command.Pairs(f.logOptions)}
	}
	if f.shmSize != "" {
		if spec.ShmBytes, err = units.RAMInBytes(f.shmSize); err != nil {
			return &command.InvalidValue{Flag: "--shm-size", Value: f.shmSize, Err: err}
		}
	}
	for _, text := range f.ulimits {
		limit, err := parseUlimit(text)
		if err != nil {
			return err
		}
		spec.Ulimits = append(spec.Ulimits, limit)
	}
	spec.DeviceRequests = f.gpus.requests
	for _, stream := range f.attach {
		switch strings.ToLower(stream) {
		case "stdin", "stdout", "stderr":
		default:
			return &command.InvalidValue{Flag: "-a, --attach", Value: stream, Err: errors.New("valid streams are STDIN, STDOUT and STDERR")}
		}
	}
	return nil
}

// attachedTo are the streams that are attached to: those of --attach, or all unless the container runs in the background.
func (f *createFlags) attachedTo(detached bool) []string {
	var out []string
	switch {
	case len(f.attach) > 0:
		for _, stream := range f.attach {
			out = append(out, strings.ToLower(stream))
		}
	case detached:
	case f.interactive:
		out = []string{"stdin", "stdout", "stderr"}
	default:
		out = []string{"stdout", "stderr"}
	}
	return out
}

// parseRestart reads a restart policy: NAME[:RETRIES].
func parseRestart(text string) (*nodev1.RestartPolicy, error) {
	name, count, counted := strings.Cut(text, ":")
	if name == "" && counted {
		return nil, errors.New("invalid restart policy format: no policy provided before colon")
	}
	p := &nodev1.RestartPolicy{Name: name}
	if counted && count != "" {
		n, err := strconv.ParseInt(count, 10, 32)
		if err != nil {
			return nil, errors.New("invalid restart policy format: maximum retry count must be an integer")
		}
		p.MaxRetries = n
	}
	if p.GetName() == "" || p.GetName() == "no" && p.GetMaxRetries() == 0 {
		return nil, nil
	}
	return p, nil
}

// parseUlimit reads a limit: NAME=SOFT[:HARD].
func parseUlimit(text string) (*nodev1.Ulimit, error) {
	limit, err := units.ParseUlimit(text)
	if err != nil {
		return nil, &command.InvalidValue{Flag: "--ulimit", Value: text, Err: err}
	}
	return &nodev1.Ulimit{Name: limit.Name, Soft: limit.Soft, Hard: limit.Hard}, nil
}

// labels joins the labels of files and flags.
func labels(files, flags []string) (map[string]string, error) {
	var all []string
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		lines, err := fileLines(f)
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("invalid label file (%s): %w", name, err)
		}
		all = append(all, lines...)
	}
	return command.Pairs(append(all, flags...)), nil
}
