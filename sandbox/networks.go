package sandbox

import (
	"fmt"
	"reflect"

	"github.com/nodeagent/nodeagent/network"
)

// SetNetworks records which people's networks one of nodectl's pods is on, after
// it joined or left some, so that RevivePod puts it on the same ones.
func (m *Manager) SetNetworks(podID string, networks *network.Membership) error {
	p, err := m.findPod(podID)
	if err != nil {
		return fmt.Errorf("record networks: %w", err)
	}
	if reflect.DeepEqual(p.get().Networks, networks) {
		return nil
	}
	return m.changePod(p, func(s *podState) { s.Networks = networks })
}
