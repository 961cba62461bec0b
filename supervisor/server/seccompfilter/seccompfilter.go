// Package seccompfilter gets the program that a seccomp configuration comes
// down to, so that it is made once and not for each process.
//
// libseccomp takes 10 ms and more for the usual profile, and libcontainer only
// loads what it makes. So a process of its own is run that loads the filter as
// the init of a container would, and the kernel is asked for it
// (PTRACE_SECCOMP_GET_FILTER, Linux 4.4 with CONFIG_CHECKPOINT_RESTORE). It is
// the very program that libcontainer would have loaded.
package seccompfilter

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// Filter is a seccomp filter as the kernel has it.
type Filter struct {
	// Flags are those of seccomp(2).
	Flags        uint64
	Instructions []unix.SockFilter
}

// ErrNotified is of a configuration that has a listener: its filter is not
// complete without the descriptor that it makes.
var ErrNotified = errors.New("filter has a listener")

// maxCached bounds the filters kept. A node has a few profiles.
const maxCached = 64

// Cache makes filters and keeps them. Its zero value is ready.
type Cache struct {
	mu      sync.Mutex // guards filters
	filters map[key]func() (Filter, error)
}

// key is a hash of a configuration, which itself is large.
type key [sha256.Size]byte

// Get returns the filter of a configuration. It takes as long as libseccomp
// does when it is new, or has failed before.
func (c *Cache) Get(config *configs.Seccomp) (Filter, error) {
	if config.ListenerPath != "" {
		return Filter{}, ErrNotified
	}
	encoded, err := json.Marshal(config)
	if err != nil {
		return Filter{}, err
	}
	k := key(sha256.Sum256(encoded))
	c.mu.Lock()
	made := c.filters[k]
	if made == nil {
		if c.filters == nil || len(c.filters) >= maxCached {
			c.filters = map[key]func() (Filter, error){}
		}
		made = sync.OnceValues(func() (Filter, error) { return capture(encoded) })
		c.filters[k] = made
	}
	c.mu.Unlock()
	filter, err := made()
	if err != nil {
		c.mu.Lock()
		delete(c.filters, k)
		c.mu.Unlock()
	}
	return filter, err
}

// capture runs the process that loads the filter, up to that moment.
func capture(config []byte) (Filter, error) {
	type result struct {
		filter Filter
		err    error
	}
	done := make(chan result)
	go func() {
		// The kernel knows a tracer by its thread, which ends with this.
		runtime.LockOSThread()
		filter, err := traced(config)
		done <- result{filter, err}
	}()
	r := <-done
	if r.err != nil {
		return Filter{}, fmt.Errorf("make seccomp filter: %w", r.err)
	}
	return r.filter, nil
}

// traced must be called on a thread of its own.
func traced(config []byte) (Filter, error) {
	stdin, err := memory(config)
	if err != nil {
		return Filter{}, err
	}
	defer stdin.Close()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{loaderName}, &syscall.ProcAttr{
		Dir: "/", Env: []string{"GOMAXPROCS=1"}, Files: []uintptr{stdin.Fd(), 2, 2},
		Sys: &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return Filter{}, err
	}
	t := tracee{pid: pid}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	stop := context.AfterFunc(ctx, t.kill)
	defer stop()
	filter, err := t.run()
	t.kill()
	t.reap()
	return filter, err
}

// memory makes a file of data, at its beginning.
func memory(data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(loaderName, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), loaderName)
	if _, err := f.WriteAt(data, 0); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
