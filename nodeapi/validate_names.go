package nodeapi

import (
	"strings"

	"github.com/containerd/errdefs"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
)

// maxName is the kernel's bound of host and domain names.
const maxName = 64

// validateNames refuses names of the host and its domain that cannot be, or
// that the namespace they are set in forbids.
func validateNames(spec *nodev1.ContainerSpec) error {
	for _, name := range []string{spec.GetHostname(), spec.GetDomainname()} {
		if len(name) > maxName || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '/' }) {
			return failf(errdefs.ErrInvalidArgument, "invalid hostname format: %s", name)
		}
	}
	if spec.GetSecurity().GetHostUts() && spec.GetHostname()+spec.GetDomainname() != "" {
		return failf(errdefs.ErrInvalidArgument, "conflicting options: hostname and the UTS mode")
	}
	return nil
}
