package nodeapi

import (
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// The real-time signals as the C library numbers them.
const (
	sigrtmin = 34
	sigrtmax = 64
)

// normalSignal turns "kill", "SIGKILL" or "9" into "SIGKILL", and real-time
// signals into "SIGRTMIN+n" or "SIGRTMAX-n".
func normalSignal(name string) (string, error) {
	if n, err := strconv.Atoi(name); err == nil {
		if s := unix.SignalName(syscall.Signal(n)); s != "" {
			return s, nil
		}
		if n >= sigrtmin && n <= sigrtmax {
			return realtimeName(n), nil
		}
		return "", failf(errdefs.ErrInvalidArgument, "invalid signal: %s", name)
	}
	upper := strings.ToUpper(name)
	if !strings.HasPrefix(upper, "SIG") {
		upper = "SIG" + upper
	}
	if unix.SignalNum(upper) != 0 {
		return upper, nil
	}
	if n, ok := realtimeNumber(upper); ok {
		return realtimeName(n), nil
	}
	return "", failf(errdefs.ErrInvalidArgument, "invalid signal: %s", name)
}

// realtimeName counts from the nearer end, as CRI's enumeration does.
func realtimeName(n int) string {
	switch {
	case n == sigrtmin:
		return "SIGRTMIN"
	case n == sigrtmax:
		return "SIGRTMAX"
	case n > sigrtmin+15:
		return "SIGRTMAX-" + strconv.Itoa(sigrtmax-n)
	}
	return "SIGRTMIN+" + strconv.Itoa(n-sigrtmin)
}

// realtimeNumber reads "SIGRTMIN+3" or "SIGRTMAX-2".
func realtimeNumber(name string) (int, bool) {
	base, offset := sigrtmin, ""
	switch {
	case strings.HasPrefix(name, "SIGRTMIN"):
		offset = strings.TrimPrefix(name, "SIGRTMIN")
	case strings.HasPrefix(name, "SIGRTMAX"):
		base, offset = sigrtmax, strings.TrimPrefix(name, "SIGRTMAX")
	default:
		return 0, false
	}
	n := 0
	if offset != "" {
		var err error
		if n, err = strconv.Atoi(offset); err != nil {
			return 0, false
		}
	}
	n += base
	return n, n >= sigrtmin && n <= sigrtmax
}

// signalText is a signal's number, as docker's events have it.
func signalText(name string) string {
	normal, err := normalSignal(name)
	if err != nil {
		return name
	}
	if n := unix.SignalNum(normal); n != 0 {
		return strconv.Itoa(int(n))
	}
	if n, ok := realtimeNumber(normal); ok {
		return strconv.Itoa(n)
	}
	return name
}
