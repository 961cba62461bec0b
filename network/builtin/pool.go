package builtin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/atomicfile"
)

const (
	defaultDataDir = "/var/lib/cni/networks"
	lockFile       = "lock"
	lastFile       = "last_reserved_ip."
	// lineBreak is between container ID and interface in an address's file.
	lineBreak = "\r\n"
	// maxLease bounds what is read of an address's file.
	maxLease = 4096
)

// pools hands out the pool of each folder, the same one to all.
type pools struct {
	mu   sync.Mutex
	dirs map[string]*pool
}

func (p *pools) of(dir string) *pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dirs == nil {
		p.dirs = map[string]*pool{}
	}
	found := p.dirs[dir]
	if found == nil {
		found = &pool{dir: dir, turn: make(chan struct{}, 1), empty: func() { p.drop(dir) }}
		p.dirs[dir] = found
	}
	return found
}

// drop forgets the pool of a folder: its network may be gone. Who waits for it still
// works with it, and the lock is the folder's.
func (p *pools) drop(dir string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.dirs, dir)
}

// pool is a folder of host-local: a file for each address that is in use,
// named by the address and holding who has it, the last address of each range
// set, and a lock that the plugin takes as well. An index of who has what
// spares reading every file for each pod. The index may lack what other
// processes added, and may name what they removed; the files decide.
type pool struct {
	dir string
	// turn holds one token while somebody of this process has the lock; it
	// guards index.
	turn chan struct{}
	// index names the addresses of each holder; nil until it is first read.
	index map[string][]string
	// empty is called when nobody has an address any more.
	empty func()
}

// lease is the lock of a pool, held. It is what host-local's allocator sees as
// its store.
type lease struct {
	*pool
	lock *os.File
}

// acquire waits for the lock. The folder is made when it is not there.
func (p *pool) acquire(ctx context.Context) (*lease, error) {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for addresses in %s: %w", p.dir, ctx.Err())
	}
	f, err := p.lockFile(ctx)
	if err == nil && p.index == nil {
		err = p.scan()
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		<-p.turn
		return nil, err
	}
	return &lease{p, f}, nil
}

// release gives the lock back.
func (l *lease) release() {
	if len(l.index) == 0 {
		l.empty()
	}
	l.lock.Close()
	<-l.turn
}

func (p *pool) lockFile(ctx context.Context) (*os.File, error) {
	path := filepath.Join(p.dir, lockFile)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o750)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(p.dir, 0o755); err == nil {
			f, err = os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o750)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open lock of addresses: %w", err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s, which another process holds: %w", path, ctx.Err())
		case <-tick.C:
		}
	}
}

// scan reads who has what.
func (p *pool) scan() error {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return fmt.Errorf("read addresses: %w", err)
	}
	p.index = map[string][]string{}
	for _, entry := range entries {
		if net.ParseIP(entry.Name()) == nil {
			continue
		}
		if holder, ok := p.holder(entry.Name()); ok {
			p.index[holder] = append(p.index[holder], entry.Name())
		}
	}
	return nil
}

// holder reads who has an address; false when nobody has.
func (p *pool) holder(name string) (string, bool) {
	data, err := atomicfile.Read(filepath.Join(p.dir, name), maxLease)
	if err != nil {
		return "", false
	}
	return strings.TrimSpace(string(data)), true
}

// holderName is what stands in an address's file.
func holderName(id, ifName string) string { return strings.TrimSpace(id) + lineBreak + ifName }

// Lock, Unlock and Close do nothing: a lease is the lock, held.
func (l *lease) Lock() error { return nil }

// Unlock does nothing; see Lock.
func (l *lease) Unlock() error { return nil }

// Close does nothing; see Lock.
func (l *lease) Close() error { return nil }

// Reserve takes an address if it is free.
func (l *lease) Reserve(id, ifName string, ip net.IP, rangeID string) (bool, error) {
	name := ip.String()
	path := filepath.Join(l.dir, name)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_EXCL|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrExist) {
		// Who writes holds the lock until something is in the file: an empty one is
		// of a process that was killed, or of a power cut, and nobody gives it back.
		if holder, ok := l.holder(name); !ok || holder != "" {
			return false, nil
		}
		f, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	if err != nil {
		return false, err
	}
	holder := holderName(id, ifName)
	_, err = f.WriteString(holder)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = overwrite(filepath.Join(l.dir, lastFile+rangeID), name)
	}
	if err != nil {
		os.Remove(path)
		return false, err
	}
	l.index[holder] = append(l.index[holder], name)
	return true, nil
}

// overwrite replaces the content of a small file in place. Emptying it first,
// as os.WriteFile does, makes some file systems write the new content to the
// disk at once, lest a crash leave neither; here any content will do.
func overwrite(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Truncate(int64(len(text)))
	}
	return errors.Join(err, f.Close())
}

// LastReservedIP returns the address last taken of a range set.
func (l *lease) LastReservedIP(rangeID string) (net.IP, error) {
	data, err := atomicfile.Read(filepath.Join(l.dir, lastFile+rangeID), maxLease)
	if err != nil {
		return nil, err
	}
	return net.ParseIP(string(data)), nil
}

// GetByID lists the addresses a holder has, as far as the index knows.
func (l *lease) GetByID(id, ifName string) []net.IP {
	var ips []net.IP
	for _, name := range l.held(holderName(id, ifName)) {
		ips = append(ips, net.ParseIP(name))
	}
	return ips
}

// held lists the addresses that the index names and the files confirm.
func (l *lease) held(holder string) []string {
	var names []string
	for _, name := range l.index[holder] {
		if found, ok := l.holder(name); ok && found == holder {
			names = append(names, name)
		}
	}
	return names
}

// ReleaseByID gives back all addresses of a holder. Only when the index knows
// none, all files are read.
func (l *lease) ReleaseByID(id, ifName string) error {
	holder := holderName(id, ifName)
	names := l.held(holder)
	if len(names) == 0 {
		if err := l.scan(); err != nil {
			return err
		}
		// Former versions of the plugin wrote the ID alone.
		names = append(l.index[holder], l.index[strings.TrimSpace(id)]...)
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(l.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("give back address %s: %w", name, err)
		}
	}
	delete(l.index, holder)
	return nil
}

// sweep gives back the addresses of all holders but those kept.
func (l *lease) sweep(keep map[string]bool) error {
	if err := l.scan(); err != nil {
		return err
	}
	for holder, names := range l.index {
		if keep[holder] {
			continue
		}
		for _, name := range names {
			if err := os.Remove(filepath.Join(l.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("give back address %s: %w", name, err)
			}
		}
		delete(l.index, holder)
	}
	return nil
}
