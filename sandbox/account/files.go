package account

import (
	"bytes"
	"math"
	"strconv"
	"strings"
)

// entry is a line of passwd(5).
type entry struct {
	name     string
	uid, gid uint32
	home     string
}

// findUser gives the first well-formed entry that is wanted; nil if none is.
func findUser(passwd []byte, wanted func(*entry) bool) *entry {
	for line := range bytes.Lines(passwd) {
		e := parseUser(string(bytes.TrimRight(line, "\r\n")))
		if e != nil && wanted(e) {
			return e
		}
	}
	return nil
}

// parseUser reads "name:password:uid:gid:comment:home:shell"; nil for a line
// that is not one.
func parseUser(line string) *entry {
	// The file may be one line of colons, and each field costs a string's head.
	f := strings.SplitN(line, ":", 8)
	if len(f) < 4 || !goodName(f[0]) {
		return nil
	}
	uid, okU := fileID(f[2])
	gid, okG := fileID(f[3])
	if !okU || !okG {
		return nil
	}
	e := &entry{name: f[0], uid: uid, gid: gid}
	if len(f) > 5 && strings.HasPrefix(f[5], "/") && !strings.ContainsFunc(f[5], isControl) {
		e.home = f[5]
	}
	return e
}

// eachGroup calls fn for each well-formed line "name:password:gid:members"
// of group(5) until it returns false.
func eachGroup(group []byte, fn func(name string, gid uint32, members string) bool) {
	for line := range bytes.Lines(group) {
		f := strings.SplitN(string(bytes.TrimRight(line, "\r\n")), ":", 5)
		if len(f) < 3 || !goodName(f[0]) {
			continue
		}
		gid, ok := fileID(f[2])
		if !ok {
			continue
		}
		members := ""
		if len(f) > 3 {
			members = f[3]
		}
		if !fn(f[0], gid, members) {
			return
		}
	}
}

// fileID reads an ID as the files have it: digits and nothing else.
func fileID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > math.MaxInt32 {
		return 0, false
	}
	return uint32(n), true
}

// goodName refuses comments, NIS lines and what no name can be.
func goodName(s string) bool {
	return s != "" && s[0] != '#' && s[0] != '+' && s[0] != '-' && !strings.ContainsFunc(s, isControl)
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
