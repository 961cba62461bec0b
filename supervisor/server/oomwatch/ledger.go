package oomwatch

import (
	"path/filepath"
	"strings"
	"sync"
)

// Ledger accounts for kills in slices. systemd removes a scope when its last
// process is gone, and its counter with it: often before anybody could read
// what just killed that process. The slice's counter stays, and is that of all
// below it. What it has beyond those of the other scopes was in the one that
// is gone.
//
// A container without a scope of cgroup v2 keeps its counter, and needs none
// of this.
type Ledger struct {
	mu     sync.Mutex // guards the field below; the files read under it answer at once
	slices map[string]*account
}

// account is that of a slice.
type account struct {
	// settled are the slice's kills that belong to none of the scopes.
	settled int64
	scopes  map[string]bool
}

// Enter begins to account for a container, before its first process runs or
// when it is adopted.
func (l *Ledger) Enter(paths map[string]string) {
	scope, slice, ok := scopeOf(paths)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.slices == nil {
		l.slices = map[string]*account{}
	}
	a := l.slices[slice]
	if a == nil {
		n, _ := killsIn(slice)
		a = &account{settled: n, scopes: map[string]bool{}}
		l.slices[slice] = a
	}
	if !a.scopes[scope] {
		n, _ := killsIn(scope)
		a.settled -= n
		a.scopes[scope] = true
	}
}

// Leave gives how often the kernel killed in a container that has ended, of
// which known were seen. failed says that it ended in a way that a kill may be
// the reason of. Two that end at once, each with several kills, may be taken
// for one another.
func (l *Ledger) Leave(paths map[string]string, known uint64, failed bool) uint64 {
	scope, slice, ok := scopeOf(paths)
	if !ok {
		return max(known, Kills(paths))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	kills := int64(known)
	n, err := killsIn(scope)
	kills = max(kills, n)
	a := l.slices[slice]
	if a == nil || !a.scopes[scope] {
		return uint64(kills)
	}
	delete(a.scopes, scope)
	defer func() {
		a.settled += kills
		if len(a.scopes) == 0 {
			delete(l.slices, slice)
		}
	}()
	if err == nil || !failed {
		return uint64(kills)
	}
	all, err := killsIn(slice)
	if err != nil {
		return uint64(kills)
	}
	lost, unsettled := all-a.settled-kills, false
	for other := range a.scopes {
		n, err := killsIn(other)
		lost -= n
		unsettled = unsettled || err != nil
	}
	if unsettled {
		lost = min(lost, 1) // the other wants its own
	}
	kills += max(lost, 0)
	return uint64(kills)
}

// scopeOf tells whether a container's cgroup is a scope, and gives its folder
// and its slice's.
func scopeOf(paths map[string]string) (scope, slice string, ok bool) {
	scope = paths[""]
	return scope, filepath.Dir(scope), len(paths) == 1 && strings.HasSuffix(scope, ".scope")
}

func killsIn(dir string) (int64, error) {
	n, err := readFile(filepath.Join(dir, "memory.events"))
	return int64(n), err
}
