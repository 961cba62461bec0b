// Package account finds out whom a process runs as: what the configuration
// or the image says, looked up in the passwd and group files of the
// container's root filesystem.
//
// Those files come with the image and are hostile input. They are opened
// without leaving the root filesystem, only if they are regular files, and
// read only up to MaxFile. A number is always an ID and never a name, however
// the files are written, so that no image can make "1000" mean root.
package account

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/sandbox/spec"
)

// MaxFile is how much of a passwd or group file is read, in bytes; a longer
// one is an error for who needs it.
const MaxFile = 1 << 20

// Query says whom is asked for. UID with GID, or Name; with neither it is root.
type Query struct {
	// UID and GID are IDs; nil is not set. GID without UID or Name is an error.
	UID, GID *int64
	// Name is "user" or "user:group", each a name or a number.
	Name string
	// Strict leaves out the groups that the image's group file gives.
	Strict bool
	// Groups are further groups, each a name or a number.
	Groups []string
}

// Resolve answers q in the root filesystem mounted at root. Its errors are
// of the kind ErrInvalidArgument, unless the files cannot be read.
func Resolve(root string, q Query) (spec.User, error) {
	r := &resolver{root: root}
	user, err := r.resolve(q)
	if err != nil {
		return spec.User{}, fmt.Errorf("user: %w", err)
	}
	for _, group := range q.Groups {
		gid, err := r.groupID(group)
		if err != nil {
			return spec.User{}, fmt.Errorf("unable to find group %s: %w", group, err)
		}
		user.AdditionalGids = append(user.AdditionalGids, gid)
	}
	return user, nil
}

// resolver reads each file at most once.
type resolver struct {
	root          string
	passwd, group []byte
	readP, readG  bool
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
}

func (r *resolver) resolve(q Query) (user spec.User, err error) {
	name, group, hasGroup := strings.Cut(q.Name, ":")
	switch {
	case q.UID != nil && q.Name != "":
		return user, bad("both an ID and a name are given")
	case q.GID != nil && q.UID == nil && q.Name == "":
		return user, bad("a group is given without a user")
	case hasGroup && (name == "" || group == ""):
		return user, bad("%.300q", q.Name)
	}
	var found *entry
	switch {
	case q.UID != nil:
		if user.UID, err = id(*q.UID); err != nil {
			return user, err
		}
		found, err = r.byID(user.UID)
	case name != "":
		found, user.UID, err = r.byName(name)
	default:
		found, err = r.byID(0)
	}
	if err != nil {
		return user, err
	}
	if found != nil {
		user.GID, user.Username, user.Home = found.gid, found.name, found.home
	}
	switch {
	case q.GID != nil:
		user.GID, err = id(*q.GID)
	case hasGroup:
		user.GID, err = r.groupID(group)
	}
	if err != nil || q.Strict || user.Username == "" {
		return user, err
	}
	user.AdditionalGids, err = r.groupsOf(user.Username)
	return user, err
}

// id checks a number from a configuration.
func id(n int64) (uint32, error) {
	if n < 0 || n > math.MaxInt32 {
		return 0, bad("ID %d is not between 0 and %d", n, math.MaxInt32)
	}
	return uint32(n), nil
}

// number reads a string as an ID. ok is false for what is not a number; a
// number that is no ID is an error.
func number(s string) (n uint32, ok bool, err error) {
	if s == "" || strings.ContainsFunc(s[:1], func(r rune) bool { return (r < '0' || r > '9') && r != '-' && r != '+' }) {
		return 0, false, nil
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		if strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' }) && s[0] != '-' && s[0] != '+' {
			// Such as "7zip": a name that begins with a digit. "0x0" is one
			// too, and will hardly be found.
			return 0, false, nil
		}
		return 0, false, bad("ID %.300q is not between 0 and %d", s, math.MaxInt32)
	}
	n, err = id(v)
	return n, true, err
}

func (r *resolver) byName(name string) (*entry, uint32, error) {
	uid, ok, err := number(name)
	if err != nil {
		return nil, 0, err
	}
	if ok {
		found, err := r.byID(uid)
		return found, uid, err
	}
	data, err := r.passwdFile()
	if err != nil {
		return nil, 0, err
	}
	e := findUser(data, func(e *entry) bool { return e.name == name })
	if e == nil {
		return nil, 0, bad("no user %.300q in the image's /etc/passwd", name)
	}
	return e, e.uid, nil
}

// byID gives nil when the file is missing or does not know the ID: the ID
// alone is enough to run.
func (r *resolver) byID(uid uint32) (*entry, error) {
	data, err := r.passwdFile()
	if err != nil {
		return nil, err
	}
	return findUser(data, func(e *entry) bool { return e.uid == uid }), nil
}

func (r *resolver) groupID(group string) (uint32, error) {
	gid, ok, err := number(group)
	if err != nil || ok {
		return gid, err
	}
	data, err := r.groupFile()
	if err != nil {
		return 0, err
	}
	found := false
	eachGroup(data, func(name string, n uint32, _ string) bool {
		if name == group {
			gid, found = n, true
		}
		return !found
	})
	if !found {
		return 0, bad("no group %.300q in the image's /etc/group", group)
	}
	return gid, nil
}

// maxGroups is the kernel's NGROUPS_MAX.
const maxGroups = 65536

// groupsOf lists the groups that name the user as a member.
func (r *resolver) groupsOf(user string) ([]uint32, error) {
	data, err := r.groupFile()
	if err != nil {
		return nil, err
	}
	var gids []uint32
	eachGroup(data, func(_ string, gid uint32, members string) bool {
		for member := range strings.SplitSeq(members, ",") {
			if member == user {
				gids = append(gids, gid)
				break
			}
		}
		return len(gids) < maxGroups
	})
	slices.Sort(gids)
	return slices.Compact(gids), nil
}

func (r *resolver) passwdFile() (_ []byte, err error) {
	if !r.readP {
		r.passwd, err = readFile(r.root, "/etc/passwd")
		r.readP = err == nil
	}
	return r.passwd, err
}

func (r *resolver) groupFile() (_ []byte, err error) {
	if !r.readG {
		r.group, err = readFile(r.root, "/etc/group")
		r.readG = err == nil
	}
	return r.group, err
}

// readFile reads a file of the image; a missing one is empty.
func readFile(root, path string) ([]byte, error) {
	handle, err := pathrs.OpenInRoot(root, path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s of the image: %w", path, err)
	}
	defer handle.Close()
	// The handle is a mere path: a FIFO or device was not opened yet.
	info, err := handle.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at %s of the image: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, bad("%s of the image is not a regular file", path)
	}
	f, err := pathrs.Reopen(handle, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, fmt.Errorf("open %s of the image: %w", path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s of the image: %w", path, err)
	}
	if len(data) > MaxFile {
		return nil, bad("%s of the image is larger than %d bytes", path, MaxFile)
	}
	return data, nil
}
