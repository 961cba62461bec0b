package seccompfilter

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/seccomp"
)

// loaderName is the first argument of the process that loads a filter, a
// configuration on its standard input. It does so while packages are
// initialised, on the thread that is traced.
const loaderName = "seccomp-load"

func init() {
	if len(os.Args) != 1 || os.Args[0] != loaderName {
		return
	}
	runtime.LockOSThread()
	if err := load(); err != nil {
		fmt.Fprintln(os.Stderr, "load seccomp filter:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func load() error {
	var config configs.Seccomp
	if err := json.NewDecoder(os.Stdin).Decode(&config); err != nil {
		return err
	}
	_, err := seccomp.InitSeccomp(&config)
	return err
}
