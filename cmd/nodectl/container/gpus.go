package container

import (
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
)

// gpuFlag is --gpus, which may be given more than once.
type gpuFlag struct {
	requests []*nodev1.DeviceRequest
}

// String is what usage texts show of it.
func (g *gpuFlag) String() string { return "" }

// Type is the name of the value in usage texts.
func (g *gpuFlag) Type() string { return "gpu-request" }

// Set reads "all", a count, or comma-separated fields such as "device=0,1" in
// quotes.
func (g *gpuFlag) Set(text string) error {
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return err
	}
	req := &nodev1.DeviceRequest{}
	seen := map[string]bool{}
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			key, value = "count", field
		}
		if seen[key] {
			return fmt.Errorf("gpu request key '%s' can be specified only once", key)
		}
		seen[key] = true
		if err := gpuField(req, key, value); err != nil {
			return err
		}
	}
	if !seen["count"] && len(req.GetDeviceIds()) == 0 {
		req.Count = 1
	}
	if len(req.GetCapabilities()) == 0 {
		req.Capabilities = []string{"gpu"}
	}
	g.requests = append(g.requests, req)
	return nil
}

// gpuField reads one field of --gpus.
func gpuField(req *nodev1.DeviceRequest, key, value string) (err error) {
	switch key {
	case "driver":
		req.Driver = value
	case "count":
		if value == "all" {
			req.Count = -1
			return nil
		}
		req.Count, err = strconv.ParseInt(value, 10, 32)
		if err != nil {
			return fmt.Errorf("invalid count (%s): value must be either \"all\" or an integer", value)
		}
	case "device":
		req.DeviceIds = strings.Split(value, ",")
	case "capabilities":
		req.Capabilities = append(strings.Split(value, ","), "gpu")
	case "options":
		fields, err := csv.NewReader(strings.NewReader(value)).Read()
		if err != nil {
			return fmt.Errorf("failed to read gpu options: %w", err)
		}
		req.Options = command.Pairs(fields)
	default:
		return fmt.Errorf("unexpected key '%s' in '%s=%s'", key, key, value)
	}
	return nil
}
