package container

import (
	"encoding/csv"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
)

func (f *createFlags) fillMounts(spec *nodev1.ContainerSpec) error {
	parsers := []struct {
		values   []string
		parse    func(string) (*nodev1.Mount, error)
		detailed bool
	}{
		{f.volumes, parseVolume, false}, {f.mounts, parseMount, true}, {f.tmpfs, parseTmpfs, false},
	}
	for _, p := range parsers {
		for _, text := range p.values {
			m, err := p.parse(text)
			if err != nil {
				return err
			}
			m.Detailed = p.detailed
			if m.GetType() == nodev1.Mount_VOLUME && m.GetVolumeDriver() == "" {
				m.VolumeDriver = f.volumeDriver
			}
			spec.Mounts = append(spec.Mounts, m)
		}
	}
	return f.fillDevices(spec)
}

// fillDevices takes devices of the host, and those of the Container Device
// Interface, whose names are VENDOR/CLASS=NAME.
func (f *createFlags) fillDevices(spec *nodev1.ContainerSpec) error {
	for _, text := range f.devices {
		if kind, name, ok := strings.Cut(text, "="); ok && strings.Contains(kind, "/") && !strings.HasPrefix(kind, "/") && name != "" {
			spec.CdiDevices = append(spec.CdiDevices, text)
			continue
		}
		d, err := parseDevice(text)
		if err != nil {
			return err
		}
		spec.Devices = append(spec.Devices, d)
	}
	return nil
}

// parseVolume reads one --volume: [SOURCE:]TARGET[:OPTIONS]. A source that is
// no path is a volume's name; none is an anonymous volume.
func parseVolume(text string) (*nodev1.Mount, error) {
	parts := strings.Split(text, ":")
	if text == "" || len(parts) > 3 || parts[0] == "" {
		return nil, fmt.Errorf("invalid volume specification: '%s'", text)
	}
	if len(parts) == 1 {
		return &nodev1.Mount{Type: nodev1.Mount_VOLUME, Target: text}, nil
	}
	source := parts[0]
	m := &nodev1.Mount{Target: parts[1]}
	switch {
	case parts[1] == "":
		return nil, fmt.Errorf("invalid volume specification: '%s'", text)
	case strings.HasPrefix(source, "."), filepath.IsAbs(source):
		abs, err := filepath.Abs(source)
		if err != nil {
			return nil, err
		}
		m.Source, m.CreateSource = abs, true
	default:
		m.Type, m.Source = nodev1.Mount_VOLUME, source
	}
	if len(parts) < 3 {
		return m, nil
	}
	for _, option := range strings.Split(parts[2], ",") {
		switch option {
		case "rw", "z", "Z", "rbind", "consistent", "cached", "delegated":
		case "bind":
			m.NonRecursive = true
		case "ro":
			m.ReadOnly = true
		case "nocopy":
			m.NoCopy = true
		case "private", "rprivate", "slave", "rslave", "shared", "rshared":
			m.Propagation = option
		default:
			return nil, fmt.Errorf("invalid mode: %s", option)
		}
	}
	return m, nil
}

// mountTypes are the types of --mount.
var mountTypes = map[string]nodev1.Mount_Type{
	"bind": nodev1.Mount_BIND, "tmpfs": nodev1.Mount_TMPFS, "image": nodev1.Mount_IMAGE, "volume": nodev1.Mount_VOLUME,
}

// parseMount reads one --mount: comma-separated fields.
func parseMount(text string) (*nodev1.Mount, error) {
	m, err := mountFields(text)
	if err != nil {
		return nil, &command.InvalidValue{Flag: "--mount", Value: text, Err: err}
	}
	return m, nil
}

func mountFields(text string) (*nodev1.Mount, error) {
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return nil, err
	}
	m := &nodev1.Mount{}
	kind := "volume"
	var own []string
	for _, field := range fields {
		name, value, hasValue := strings.Cut(field, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if name == "type" {
			kind = strings.ToLower(value)
			continue
		}
		if prefix, _, ok := strings.Cut(name, "-"); ok {
			own = append(own, prefix)
		}
		if err := mountField(m, name, value, hasValue); err != nil {
			return nil, err
		}
	}
	var known bool
	if m.Type, known = mountTypes[kind]; !known {
		return nil, fmt.Errorf("invalid mount config for type %q: mount type unknown", kind)
	}
	for _, prefix := range own {
		if prefix != kind {
			return nil, fmt.Errorf("cannot mix '%s-*' options with mount type '%s'", prefix, kind)
		}
	}
	if m.Target == "" {
		return nil, errors.New("target is required")
	}
	return m, completeMount(m)
}

// completeMount checks the source, and makes it absolute where it is a path.
func completeMount(m *nodev1.Mount) (err error) {
	switch {
	case m.GetReadOnlyNonRecursive() && !m.GetReadOnly():
		return errors.New("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
	case m.GetReadOnlyForceRecursive() && !m.GetReadOnly():
		return errors.New("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
	case m.GetReadOnlyForceRecursive() && m.GetPropagation() != "rprivate":
		return errors.New("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction")
	case m.GetType() == nodev1.Mount_TMPFS && m.GetSource() != "":
		return errors.New("a tmpfs mount has no source")
	case m.GetType() == nodev1.Mount_BIND && strings.HasPrefix(m.GetSource(), "."):
		m.Source, err = filepath.Abs(m.Source)
	}
	return err
}

// mountField reads one field of --mount.
func mountField(m *nodev1.Mount, name, value string, hasValue bool) (err error) {
	on := func() (bool, error) {
		if !hasValue {
			return true, nil
		}
		return strconv.ParseBool(value)
	}
	switch name {
	case "source", "src":
		m.Source = value
	case "target", "dst", "destination":
		m.Target = value
	case "readonly", "ro":
		m.ReadOnly, err = on()
	case "consistency":
	case "bind-propagation":
		m.Propagation = strings.ToLower(value)
	case "bind-nonrecursive":
		m.NonRecursive, err = on()
	case "bind-create-src":
		m.CreateSource, err = on()
	case "volume-nocopy":
		m.NoCopy, err = on()
	case "volume-driver":
		m.VolumeDriver = value
	case "image-subpath", "volume-subpath":
		m.Subpath = value
	case "tmpfs-size":
		m.TmpfsSize, err = units.RAMInBytes(value)
	case "tmpfs-mode":
		m.TmpfsMode, err = parseMode(value)
	default:
		return mountPair(m, name, value)
	}
	if err != nil {
		return fmt.Errorf("invalid value for %s: %s", name, value)
	}
	return nil
}

// mountPair reads those fields of --mount whose value is a pair or a word.
func mountPair(m *nodev1.Mount, name, value string) error {
	key, text, _ := strings.Cut(value, "=")
	switch name {
	case "volume-label":
		if m.VolumeLabels == nil {
			m.VolumeLabels = map[string]string{}
		}
		m.VolumeLabels[key] = text
	case "volume-opt":
		if m.VolumeOptions == nil {
			m.VolumeOptions = map[string]string{}
		}
		m.VolumeOptions[key] = text
	case "bind-recursive":
		switch value {
		case "enabled":
		case "writable":
			m.ReadOnlyNonRecursive = true
		case "disabled":
			m.NonRecursive = true
		case "readonly":
			m.ReadOnlyForceRecursive = true
		default:
			return fmt.Errorf("invalid value for %s: %s: it must be \"enabled\", \"disabled\", \"writable\" or \"readonly\"", name, value)
		}
	default:
		return fmt.Errorf("unexpected key '%s' in '%s=%s'", name, name, value)
	}
	return nil
}

// parseTmpfs reads one --tmpfs: TARGET[:OPTIONS].
func parseTmpfs(text string) (*nodev1.Mount, error) {
	target, options, _ := strings.Cut(text, ":")
	m := &nodev1.Mount{Type: nodev1.Mount_TMPFS, Target: target}
	if options == "" {
		return m, nil
	}
	for _, option := range strings.Split(options, ",") {
		name, value, _ := strings.Cut(option, "=")
		var err error
		switch name {
		case "rw", "sync", "async", "dirsync", "defaults", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime":
		case "ro":
			m.ReadOnly = true
		case "exec", "noexec", "suid", "nosuid", "dev", "nodev":
			m.Options = append(m.Options, name)
		case "uid", "gid", "nr_inodes", "nr_blocks":
			if _, err = strconv.ParseUint(strings.TrimRight(value, "kmgKMG"), 10, 63); err == nil {
				m.Options = append(m.Options, option)
			}
		case "size":
			if strings.HasSuffix(value, "%") {
				m.Options = append(m.Options, option)
				continue
			}
			m.TmpfsSize, err = units.RAMInBytes(value)
		case "mode":
			m.TmpfsMode, err = parseMode(value)
		default:
			return nil, fmt.Errorf("invalid tmpfs option %q", option)
		}
		if err != nil {
			return nil, fmt.Errorf("invalid tmpfs option %q", option)
		}
	}
	return m, nil
}

func parseMode(text string) (uint32, error) {
	mode, err := strconv.ParseUint(text, 8, 12)
	return uint32(mode), err
}

// parseDevice reads one --device: SOURCE[:TARGET][:PERMISSIONS].
func parseDevice(text string) (*nodev1.Device, error) {
	parts := strings.Split(text, ":")
	d := &nodev1.Device{HostPath: parts[0], ContainerPath: parts[0], Permissions: "rwm"}
	switch {
	case len(parts) == 3:
		d.ContainerPath, d.Permissions = parts[1], parts[2]
	case len(parts) == 2 && validPermissions(parts[1]):
		d.Permissions = parts[1]
	case len(parts) == 2:
		d.ContainerPath = parts[1]
	case len(parts) > 3:
		return nil, fmt.Errorf("bad format for path: %s", text)
	}
	for _, path := range []string{d.ContainerPath, d.HostPath} {
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("%s is not an absolute path", path)
		}
	}
	if !validPermissions(d.Permissions) {
		return nil, fmt.Errorf("bad mode specified: %s", d.Permissions)
	}
	return d, nil
}

func validPermissions(text string) bool {
	return text != "" && strings.Trim(text, "rwm") == "" && len(text) <= 3
}
