// Package containerinit makes of the program the init of a container or an
// exec, when libcontainer has run it anew as that.
//
// It does so while packages are initialised, and imports nothing besides
// libcontainer: Go initialises the packages that are ready in the order of
// their paths, so the supervisor's server, which comes after this one, is left
// out of each start and each exec.
package containerinit

import (
	"os"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // enters namespaces before the Go runtime starts
)

func init() {
	if len(os.Args) > 1 && os.Args[1] == "init" {
		libcontainer.Init()
	}
}
