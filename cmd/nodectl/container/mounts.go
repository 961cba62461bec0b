package container

import (
	"encoding/csv"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

func (f *createFlags) fillMounts(spec *nodev1.ContainerSpec) error {
	parsers := []struct {
		values []string
		parse  func(string) (*nodev1.Mount, error)
	}{
		{f.volumes, parseVolume}, {f.mounts, parseMount}, {f.tmpfs, parseTmpfs},
	}
	for _, p := range parsers {
		for _, text := range p.values {
			m, err := p.parse(text)
			if err != nil {
				return err
			}
			spec.Mounts = append(spec.Mounts, m)
		}
	}
	for _, text := range f.devices {
		d, err := parseDevice(text)
		if err != nil {
			return err
		}
		spec.Devices = append(spec.Devices, d)
	}
	return nil
}

// parseVolume reads one --volume: SOURCE:TARGET[:OPTIONS].
func parseVolume(text string) (*nodev1.Mount, error) {
	parts := strings.Split(text, ":")
	if len(parts) > 3 {
		return nil, fmt.Errorf("invalid volume specification: '%s'", text)
	}
	if len(parts) == 1 {
		return nil, fmt.Errorf("invalid volume specification: '%s': volumes are not supported yet, give a path of the host", text)
	}
	source := parts[0]
	switch {
	case source == "" || parts[1] == "":
		return nil, fmt.Errorf("invalid volume specification: '%s'", text)
	case strings.HasPrefix(source, "."):
		abs, err := filepath.Abs(source)
		if err != nil {
			return nil, err
		}
		source = abs
	case !filepath.IsAbs(source):
		return nil, fmt.Errorf("invalid volume specification: '%s': named volumes are not supported yet, give an absolute path", text)
	}
	m := &nodev1.Mount{Source: filepath.Clean(source), Target: parts[1], CreateSource: true}
	if len(parts) < 3 {
		return m, nil
	}
	for _, option := range strings.Split(parts[2], ",") {
		switch option {
		case "rw", "z", "Z", "bind", "rbind", "consistent", "cached", "delegated":
		case "ro":
			m.ReadOnly = true
		case "private", "rprivate", "slave", "rslave", "shared", "rshared":
			m.Propagation = option
		default:
			return nil, fmt.Errorf("invalid mode: %s", option)
		}
	}
	return m, nil
}

// parseMount reads one --mount: comma-separated fields.
func parseMount(text string) (*nodev1.Mount, error) {
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return nil, fmt.Errorf("invalid argument %q for \"--mount\" flag: %w", text, err)
	}
	m := &nodev1.Mount{}
	kind := "volume"
	for _, field := range fields {
		name, value, hasValue := strings.Cut(field, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if name == "type" {
			kind = strings.ToLower(value)
			continue
		}
		if err := mountField(m, name, value, hasValue); err != nil {
			return nil, fmt.Errorf("invalid argument %q for \"--mount\" flag: %w", text, err)
		}
	}
	switch kind {
	case "bind":
		m.Type = nodev1.Mount_BIND
	case "tmpfs":
		m.Type = nodev1.Mount_TMPFS
	case "image":
		m.Type = nodev1.Mount_IMAGE
	case "volume":
		return nil, fmt.Errorf("invalid argument %q for \"--mount\" flag: volumes are not supported yet, use type=bind", text)
	default:
		return nil, fmt.Errorf("invalid argument %q for \"--mount\" flag: unknown mount type %q", text, kind)
	}
	if m.Target == "" {
		return nil, fmt.Errorf("invalid argument %q for \"--mount\" flag: target is required", text)
	}
	if m.Type == nodev1.Mount_BIND && strings.HasPrefix(m.Source, ".") {
		if m.Source, err = filepath.Abs(m.Source); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// mountField reads one field of --mount.
func mountField(m *nodev1.Mount, name, value string, hasValue bool) (err error) {
	switch name {
	case "source", "src":
		m.Source = value
	case "target", "dst", "destination":
		m.Target = value
	case "readonly", "ro":
		m.ReadOnly = true
		if hasValue {
			m.ReadOnly, err = strconv.ParseBool(value)
		}
	case "bind-propagation":
		m.Propagation = strings.ToLower(value)
	case "bind-create-src":
		m.CreateSource = true
		if hasValue {
			m.CreateSource, err = strconv.ParseBool(value)
		}
	case "image-subpath":
		m.Subpath = value
	case "tmpfs-size":
		m.TmpfsSize, err = units.RAMInBytes(value)
	case "tmpfs-mode":
		m.TmpfsMode, err = parseMode(value)
	default:
		return fmt.Errorf("unexpected key '%s'", name)
	}
	if err != nil {
		return fmt.Errorf("invalid value for %s: %s", name, value)
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
		case "rw", "sync", "async":
		case "ro":
			m.ReadOnly = true
		case "exec", "noexec", "suid", "nosuid", "dev", "nodev":
			m.Options = append(m.Options, name)
		case "size":
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
		return nil, fmt.Errorf("invalid device specification: %s", text)
	}
	if !filepath.IsAbs(d.HostPath) || !filepath.IsAbs(d.ContainerPath) {
		return nil, fmt.Errorf("bad format for path: %s", text)
	}
	if !validPermissions(d.Permissions) {
		return nil, fmt.Errorf("bad mode specified: %s", d.Permissions)
	}
	return d, nil
}

func validPermissions(text string) bool {
	return text != "" && strings.Trim(text, "rwm") == "" && len(text) <= 3
}
