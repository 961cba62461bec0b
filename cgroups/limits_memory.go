package cgroups

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/containerd/errdefs"
	oci "github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const (
	memoryLimitV1 = "memory.limit_in_bytes"
	memswLimitV1  = "memory.memsw.limit_in_bytes"
)

func memoryV1(w *writer, res *specs.LinuxResources) error {
	r := res.Memory
	if err := memoryAndSwapV1(w, value(r.Limit), value(r.Swap)); err != nil {
		return err
	}
	if v := value(r.Reservation); v != 0 {
		if err := w.set("memory.soft_limit_in_bytes", strconv.FormatInt(v, 10)); err != nil {
			return err
		}
	}
	if r.Swappiness != nil {
		return w.set("memory.swappiness", strconv.FormatUint(*r.Swappiness, 10))
	}
	return nil
}

// memoryAndSwapV1 sets the limits of memory and of memory with swap. The
// latter may at no moment be below the former, which decides on the order.
func memoryAndSwapV1(w *writer, limit, swap int64) error {
	if limit == -1 && swap == 0 && w.has(memswLimitV1) {
		swap = -1
	}
	setSwap := func() error {
		if swap == 0 {
			return nil
		}
		return w.set(memswLimitV1, strconv.FormatInt(swap, 10))
	}
	raise := swap == -1 || limit != 0 && swap > 0 && uint64(swap) > w.number(memoryLimitV1)
	if raise {
		if err := setSwap(); err != nil {
			return err
		}
	}
	if limit != 0 {
		err := w.set(memoryLimitV1, strconv.FormatInt(limit, 10))
		if errors.Is(err, unix.EBUSY) {
			return belowUse(limit, w.number("memory.usage_in_bytes"))
		}
		if err != nil {
			return err
		}
	}
	if raise {
		return nil
	}
	return setSwap()
}

func memoryV2(w *writer, res *specs.LinuxResources) error {
	r := res.Memory
	limit := value(r.Limit)
	// The kernel would take the limit, and kill until it holds.
	if used := w.number("memory.current"); limit > 0 && uint64(limit) < used {
		return belowUse(limit, used)
	}
	swap, err := oci.ConvertMemorySwapToCgroupV2Value(value(r.Swap), limit)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := swapV2(w, swap, value(r.Swap) > 0); err != nil {
		return err
	}
	if limit != 0 {
		if err := w.set("memory.max", orMax(limit)); err != nil {
			return err
		}
	}
	if v := value(r.Reservation); v != 0 {
		return w.set("memory.low", orMax(v))
	}
	return nil
}

// swapV2 sets the limit of swap alone; zero is a limit only if one was asked for.
func swapV2(w *writer, swap int64, asked bool) error {
	if swap == 0 && !asked {
		return nil
	}
	to := "0"
	if swap != 0 {
		to = orMax(swap)
	}
	err := w.set("memory.swap.max", to)
	// Without swap accounting there is none to forbid or allow.
	if errors.Is(err, unix.ENOENT) && (to == "0" || to == "max") {
		return nil
	}
	return err
}

func belowUse(limit int64, used uint64) error {
	return fmt.Errorf("the memory limit %d is below the %d bytes in use: %w", limit, used, errdefs.ErrFailedPrecondition)
}

func value(p *int64) int64 {
	if p == nil {
		return 0
	}
	return *p
}

// orMax writes a limit as v2 does, -1 as "max".
func orMax(v int64) string {
	if v < 0 {
		return "max"
	}
	return strconv.FormatInt(v, 10)
}
