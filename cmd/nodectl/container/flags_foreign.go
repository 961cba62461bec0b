package container

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/spf13/pflag"
)

// foreignFlags are docker's that nothing here stands for: those of Windows mean
// nothing, as with docker on Linux; the others are refused with the reason.
type foreignFlags struct {
	linkLocalIPs []string
	apiSocket    bool
}

func (f *foreignFlags) add(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.linkLocalIPs, "link-local-ip", nil, "Container IPv4/IPv6 link-local addresses")
	flags.BoolVar(&f.apiSocket, "use-api-socket", false, "Bind mount the API socket and its credentials")
	flags.Int64("cpu-count", 0, "CPU count (Windows only)")
	flags.Int64("cpu-percent", 0, "CPU percent (Windows only)")
	flags.String("io-maxbandwidth", "", "Maximum IO bandwidth limit for the system drive (Windows only)")
	flags.Uint64("io-maxiops", 0, "Maximum IOps limit for the system drive (Windows only)")
	for _, name := range []string{"link-local-ip", "use-api-socket", "cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"} {
		_ = flags.MarkHidden(name) // fails for an unknown flag only
	}
}

func (f *foreignFlags) check() error {
	switch {
	case len(f.linkLocalIPs) > 0:
		return errors.New("--link-local-ip is not supported: a network gives each container one address of each kind")
	case f.apiSocket:
		return errors.New("--use-api-socket is not supported: the agent's socket is not docker's")
	}
	return nil
}

// sysctlNames are those of an IPC namespace; all of the prefixes belong to
// namespaces too.
var (
	sysctlNames = []string{
		"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
		"kernel.shm_rmid_forced",
	}
	sysctlPrefixes = []string{"net.", "fs.mqueue."}
)

// checkSysctls refuses those of the host, as docker's command line does.
func (f *createFlags) checkSysctls() error {
	for _, text := range f.sysctls {
		name, _, ok := strings.Cut(text, "=")
		known := slices.Contains(sysctlNames, name) ||
			slices.ContainsFunc(sysctlPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
		if !ok || !known {
			return &command.InvalidValue{Flag: "--sysctl", Value: text, Err: fmt.Errorf("sysctl '%s' is not allowed", text)}
		}
	}
	return nil
}
