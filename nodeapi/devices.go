package nodeapi

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

const (
	// driverCDI is that of requests by whole names.
	driverCDI = "cdi"
	// driverNvidia is that of GPUs by numbers and UUIDs, and gpuKind the kind
	// of their devices. Where there are none, those of another vendor do.
	driverNvidia = "nvidia"
	gpuKind      = "nvidia.com/gpu"
	gpuClass     = "/gpu"
	// deviceAll is the name of all devices of a kind together.
	deviceAll = "all"
)

// findDevices turns the requests for devices into names of the Container Device
// Interface, and refuses names that no file of the host describes.
func (s *Server) findDevices(spec *nodev1.ContainerSpec) error {
	if len(spec.GetDeviceRequests())+len(spec.GetCdiDevices()) == 0 {
		return nil
	}
	have, err := s.sandboxes.CDIDevices()
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	for _, req := range spec.GetDeviceRequests() {
		names, err := requestedDevices(req, have)
		if err != nil {
			return err
		}
		spec.CdiDevices = append(spec.CdiDevices, names...)
	}
	var unknown []string
	for _, name := range spec.GetCdiDevices() {
		if !slices.Contains(have, name) {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		return failf(errdefs.ErrInvalidArgument, "CDI device injection failed: unresolvable CDI devices %s", strings.Join(unknown, ", "))
	}
	return nil
}

// requestedDevices are the devices that a request means.
func requestedDevices(req *nodev1.DeviceRequest, have []string) ([]string, error) {
	if req.GetCount() != 0 && len(req.GetDeviceIds()) > 0 {
		return nil, failf(errdefs.ErrInvalidArgument, "cannot set both Count and DeviceIDs on device request")
	}
	gpu := slices.Contains(req.GetCapabilities(), "gpu")
	kind := ""
	switch {
	case req.GetDriver() == driverCDI:
		return req.GetDeviceIds(), nil
	case gpu && (req.GetDriver() == "" || req.GetDriver() == driverNvidia):
		kind = gpuKindOf(have, req.GetDriver())
	}
	if kind == "" {
		return nil, failf(errdefs.ErrInvalidArgument, "could not select device driver %q with capabilities: [[%s]]",
			req.GetDriver(), strings.Join(req.GetCapabilities(), " "))
	}
	if len(req.GetDeviceIds()) > 0 {
		var names []string
		for _, id := range req.GetDeviceIds() {
			names = append(names, kind+"="+id)
		}
		return names, nil
	}
	return countedDevices(kind, req.GetCount(), have)
}

// gpuKindOf is the kind of GPUs that the host has; empty without any.
func gpuKindOf(have []string, driver string) string {
	found := ""
	for _, name := range have {
		kind, _, _ := strings.Cut(name, "=")
		switch {
		case kind == gpuKind:
			return kind
		case strings.HasSuffix(kind, gpuClass) && driver == "":
			found = cmp.Or(found, kind)
		}
	}
	return found
}

// countedDevices are as many devices of a kind as are asked for, -1 meaning
// all. One device may be there by its number and by its UUID: where there are
// numbers they count.
func countedDevices(kind string, count int64, have []string) ([]string, error) {
	type device struct {
		name   string
		number int
	}
	var numbered, others []device
	for _, name := range have {
		id, ok := strings.CutPrefix(name, kind+"=")
		switch n, err := strconv.Atoi(id); {
		case !ok:
		case id == deviceAll && count < 0:
			return []string{name}, nil
		case id == deviceAll:
		case err == nil:
			numbered = append(numbered, device{name, n})
		default:
			others = append(others, device{name: name})
		}
	}
	list := numbered
	if len(list) == 0 {
		list = others
	}
	slices.SortStableFunc(list, func(a, b device) int { return cmp.Compare(a.number, b.number) })
	if int(count) > len(list) {
		return nil, failf(errdefs.ErrInvalidArgument, "cannot give %d devices: the node has %d of %s", count, len(list), kind)
	}
	if count >= 0 {
		list = list[:count]
	}
	var names []string
	for _, d := range list {
		names = append(names, d.name)
	}
	return names, nil
}
