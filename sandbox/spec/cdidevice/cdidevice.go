// Package cdidevice injects devices described by CDI files into
// specifications, for sandbox/spec, which does no I/O of its own.
package cdidevice

import (
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

// DefaultDirs are where CDI files are looked for.
var DefaultDirs = slices.Clone(cdi.DefaultSpecDirs)

// Edit gives the function that injects the devices of a configuration,
// described by files in dirs, as spec.Input.Edit takes it; nil when the
// configuration names none. The files are read when it is called, so that
// nothing is watched or kept. A device that no file describes is
// errdefs.ErrInvalidArgument.
func Edit(dirs []string, devices []*runtime.CDIDevice) func(*specs.Spec) error {
	if len(devices) == 0 {
		return nil
	}
	names := make([]string, len(devices))
	for i, d := range devices {
		names[i] = d.GetName()
	}
	return func(s *specs.Spec) error {
		cache, err := cdi.NewCache(cdi.WithSpecDirs(dirs...), cdi.WithAutoRefresh(false))
		if err != nil {
			return fmt.Errorf("read CDI files: %w", err)
		}
		missing, err := cache.InjectDevices(s, names...)
		if err == nil && len(missing) == 0 {
			return nil
		}
		if len(missing) == 0 {
			return fmt.Errorf("inject CDI devices: %w", err)
		}
		i := slices.Index(names, missing[0])
		return fmt.Errorf("CDI_devices[%d].name: %.300q is in no CDI file%s: %w", i, missing[0], broken(cache), errdefs.ErrInvalidArgument)
	}
}

// broken tells of files that could not be read, one of which may be why a
// device is missing.
func broken(cache *cdi.Cache) string {
	var all []error
	for path, errs := range cache.GetErrors() {
		all = append(all, fmt.Errorf("%s: %w", path, errors.Join(errs...)))
	}
	if len(all) == 0 {
		return ""
	}
	return fmt.Sprintf(" (%v)", errors.Join(all...))
}
