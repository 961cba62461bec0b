package sandbox

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// realtimeMin and realtimeMax are the signals that SIGRTMIN and SIGRTMAX name
// in C libraries (signal(7)).
const (
	realtimeMin = 34
	realtimeMax = 64
)

// parseSignal reads "SIGTERM", "TERM", "15", "RTMIN+3" or "RTMAX-1"; CRI
// writes "SIGRTMINPLUS3" and "SIGRTMAXMINUS1".
func parseSignal(s string) (syscall.Signal, error) {
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n, err := strconv.Atoi(name); err == nil {
		if n < 1 || n > realtimeMax {
			return 0, unknownSignal(s)
		}
		return syscall.Signal(n), nil
	}
	name = strings.NewReplacer("MINPLUS", "MIN+", "MAXMINUS", "MAX-").Replace(name)
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	for prefix, base := range map[string]int{"RTMIN": realtimeMin, "RTMAX": realtimeMax} {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		offset := 0
		if rest != "" {
			var err error
			if offset, err = strconv.Atoi(rest); err != nil {
				break
			}
		}
		if n := base + offset; n >= realtimeMin && n <= realtimeMax {
			return syscall.Signal(n), nil
		}
	}
	return 0, unknownSignal(s)
}

// signalName is the opposite of parseSignal.
func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	switch n := int(sig); {
	case n == realtimeMin:
		return "SIGRTMIN"
	case n > realtimeMin:
		return "SIGRTMIN+" + strconv.Itoa(n-realtimeMin)
	default:
		return strconv.Itoa(n)
	}
}

func unknownSignal(s string) error {
	return fmt.Errorf("signal %q: %w", s, errdefs.ErrInvalidArgument)
}
