package cve

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// probeMode is the variable that turns this program into a probe, to be run in a container.
const probeMode = "NODEAGENT_CVE_PROBE"

// probing makes a container run a probe.
func probing(t *testing.T, config *runtimeapi.ContainerConfig, mode string) *runtimeapi.ContainerConfig {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	config.Mounts = append(config.Mounts, &runtimeapi.Mount{HostPath: program, ContainerPath: "/probe", Readonly: true})
	config.Command = []string{"/probe"}
	config.Envs = append(config.Envs, &runtimeapi.KeyValue{Key: probeMode, Value: []byte(mode)})
	return config
}

// probe does one of the things that a shell cannot do, or not fast enough.
func probe(mode string) int {
	switch mode {
	case "overwrite":
		return overwrite()
	case "exchange":
		return exchange()
	case "seccomp":
		return forbidden()
	}
	return 2
}

// overwrite opens for writing, for ever, every program that runs beside it and is not its own.
func overwrite() int {
	own, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 1
	}
	for {
		found, _ := filepath.Glob("/proc/[0-9]*/exe")
		for _, path := range found {
			target, err := os.Readlink(path)
			if err != nil || target == own {
				continue
			}
			// A program that runs cannot be written to; it is held by its path until it has ended.
			fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			for range 50 {
				if w, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
					_, _ = unix.Write(w, []byte("overwritten"))
					unix.Close(w)
					fmt.Println("wrote", target)
				}
			}
			unix.Close(fd)
		}
	}
}

// exchange swaps /v/a and /v/b, for ever.
func exchange() int {
	for {
		if err := unix.Renameat2(unix.AT_FDCWD, "/v/a", unix.AT_FDCWD, "/v/b", unix.RENAME_EXCHANGE); err != nil {
			fmt.Println(err)
			return 1
		}
	}
}

// forbidden tries system calls that the default profile has to forbid, and lists those that went through.
func forbidden() int {
	var params [120]byte
	for name, call := range map[string]func() unix.Errno{
		"io_uring_setup": func() unix.Errno {
			_, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params[0])), 0)
			return e
		},
		"io_uring_enter": func() unix.Errno {
			_, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, ^uintptr(0), 0, 0, 0, 0, 0)
			return e
		},
		"socket(AF_ALG)": func() unix.Errno {
			_, err := unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0)
			e, _ := err.(unix.Errno)
			return e
		},
		"socket(AF_VSOCK)": func() unix.Errno {
			_, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
			e, _ := err.(unix.Errno)
			return e
		},
		"keyctl":          func() unix.Errno { _, _, e := unix.Syscall(unix.SYS_KEYCTL, 0, 0, 0); return e },
		"userfaultfd":     func() unix.Errno { _, _, e := unix.Syscall(unix.SYS_USERFAULTFD, 0, 0, 0); return e },
		"unshare":         func() unix.Errno { _, _, e := unix.Syscall(unix.SYS_UNSHARE, unix.CLONE_NEWUSER, 0, 0); return e },
		"mount":           func() unix.Errno { _, _, e := unix.Syscall(unix.SYS_MOUNT, 0, 0, 0); return e },
		"bpf":             func() unix.Errno { _, _, e := unix.Syscall(unix.SYS_BPF, 0, 0, 0); return e },
		"open_by_handle":  func() unix.Errno { _, _, e := unix.Syscall(unix.SYS_OPEN_BY_HANDLE_AT, 0, 0, 0); return e },
		"perf_event_open": func() unix.Errno { _, _, e := unix.Syscall(unix.SYS_PERF_EVENT_OPEN, 0, 0, 0); return e },
	} {
		if e := call(); e != unix.EPERM {
			fmt.Printf("%s: %d\n", name, e)
		}
	}
	return 0
}
