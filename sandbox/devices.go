package sandbox

import "github.com/nodeagent/nodeagent/sandbox/spec/cdidevice"

// CDIDevices lists the devices that the host has for the Container Device
// Interface by their whole names, in order.
func (m *Manager) CDIDevices() ([]string, error) { return cdidevice.List(m.cfg.CDIDirs) }
