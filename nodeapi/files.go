package nodeapi

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"golang.org/x/sys/unix"
)

// logName is the log's name in a container's folder.
const logName = "container.log"

// files are the folders of nodectl's containers, one below root and one
// below state for each. A container's folders are named by a key of its own,
// because they are made before its pod has an ID.
type files struct {
	root, state string
}

// newKey returns a fresh key.
func newKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}

// prepare makes the parents, and removes the folders of all keys but those
// given: they belong to containers that were half made or half removed.
func (f files) prepare(keep map[string]bool) error {
	for _, parent := range []string{f.root, f.state} {
		if err := os.MkdirAll(parent, 0o700); err != nil {
			return err
		}
	}
	for _, parent := range []string{f.root, f.state} {
		entries, err := os.ReadDir(parent)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if keep[e.Name()] {
				continue
			}
			if err := f.remove(e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// dir is the durable folder of a container.
func (f files) dir(key string) string { return filepath.Join(f.root, key) }

// path is a file in the durable folder of a container.
func (f files) path(key, name string) string { return filepath.Join(f.root, key, name) }

// tmpfs is where the container's n-th tmpfs is mounted on the host.
func (f files) tmpfs(key string, n int) string {
	return filepath.Join(f.state, key, "tmpfs-"+strconv.Itoa(n))
}

// part is where the folder of a volume that is the container's n-th mount is
// mounted on the host while the container starts.
func (f files) part(key string, n int) string {
	return filepath.Join(f.state, key, "part-"+strconv.Itoa(n))
}

// makingName is the file in a container's folder that says that it is being made.
// Where an agent finds one as it starts, the one before it was killed over that,
// and nobody was told of the container.
const makingName = "making"

// make makes a container's folders.
func (f files) make(key string) error {
	if err := os.Mkdir(f.dir(key), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(f.path(key, makingName), nil, 0o600); err != nil {
		return err
	}
	return os.Mkdir(filepath.Join(f.state, key), 0o700)
}

// made notes that a container is whole.
func (f files) made(key string) error { return os.Remove(f.path(key, makingName)) }

// halfMade says whether a container is not.
func (f files) halfMade(key string) bool {
	_, err := os.Lstat(f.path(key, makingName))
	return err == nil
}

// remove removes a container's folders and unmounts what is mounted there.
// What is gone already is no error.
func (f files) remove(key string) error {
	if key == "" || strings.ContainsAny(key, "/") || key == "." || key == ".." {
		return nil
	}
	if err := f.unmountTmpfs(key); err != nil {
		return err
	}
	if err := f.removeParts(key); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(f.state, key)); err != nil {
		return err
	}
	return os.RemoveAll(f.dir(key))
}

// makeTargets makes the folders that a container's tmpfs mounts and parts of
// volumes are mounted on, where they are missing: the state folder does not
// outlast a reboot.
func (f files) makeTargets(key string, mounts []*nodev1.Mount) error {
	targets := []string{filepath.Join(f.state, key)}
	for i, m := range mounts {
		switch {
		case m.GetType() == nodev1.Mount_TMPFS:
			targets = append(targets, f.tmpfs(key, i))
		case isPart(m):
			targets = append(targets, f.part(key, i))
		}
	}
	for _, target := range targets {
		if err := os.MkdirAll(target, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// isPart says whether a mount is of a folder in a volume.
func isPart(m *nodev1.Mount) bool {
	return m.GetType() == nodev1.Mount_VOLUME && m.GetSubpath() != ""
}

// mountTmpfs gives a container that is about to start fresh tmpfs mounts.
func (f files) mountTmpfs(key string, mounts []*nodev1.Mount) error {
	if err := f.unmountTmpfs(key); err != nil {
		return err
	}
	if err := f.makeTargets(key, mounts); err != nil {
		return err
	}
	for i, m := range mounts {
		if m.GetType() != nodev1.Mount_TMPFS {
			continue
		}
		target := f.tmpfs(key, i)
		flags, data := tmpfsOptions(m)
		if err := unix.Mount("tmpfs", target, "tmpfs", flags, data); err != nil {
			return fmt.Errorf("mount tmpfs %s: %w", target, err)
		}
	}
	return nil
}

// unmountTmpfs takes away what mountTmpfs mounted; containers that still use
// one keep it.
func (f files) unmountTmpfs(key string) error {
	targets, err := filepath.Glob(filepath.Join(f.state, key, "tmpfs-*"))
	if err != nil {
		return err
	}
	for _, target := range targets {
		var err error
		for err == nil { // two starts at once may have mounted two
			err = unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unmount tmpfs %s: %w", target, err)
		}
	}
	return nil
}

// removeParts removes the folders that parts of volumes are mounted on. One that
// something is mounted on after all stays, and what is in it with it.
func (f files) removeParts(key string) error {
	targets, err := filepath.Glob(filepath.Join(f.state, key, "part-*"))
	if err != nil {
		return err
	}
	for _, target := range targets {
		for err == nil {
			err = unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
		if !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", target, err)
		}
		if err = unix.Rmdir(target); err != nil {
			return fmt.Errorf("remove %s: %w", target, err)
		}
	}
	return nil
}

// tmpfsForbids is what nothing in a tmpfs may be used for. As docker's it is
// nosuid, nodev and noexec unless told otherwise; the last word counts.
func tmpfsForbids(m *nodev1.Mount) []string {
	var out []string
	for _, use := range []string{"suid", "dev", "exec"} {
		allowed := slices.Index(reversed(m.GetOptions()), use)
		forbidden := slices.Index(reversed(m.GetOptions()), "no"+use)
		if allowed < 0 || forbidden >= 0 && forbidden < allowed {
			out = append(out, "no"+use)
		}
	}
	return out
}

// reversed is a list from its end on.
func reversed(list []string) []string {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

// tmpfsFlags are the flags of mount(2) for what a tmpfs forbids.
var tmpfsFlags = map[string]uintptr{"nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC}

// tmpfsOptions are the flags and data of mount(2) for a tmpfs.
func tmpfsOptions(m *nodev1.Mount) (flags uintptr, data string) {
	for _, word := range tmpfsForbids(m) {
		flags |= tmpfsFlags[word]
	}
	numbers := ""
	for _, option := range m.GetOptions() {
		if tmpfsNumber.MatchString(option) {
			numbers += "," + option
		}
	}
	mode := m.GetTmpfsMode()
	if mode == 0 {
		mode = 0o1777
	}
	data = fmt.Sprintf("mode=%o", mode&0o7777)
	if m.GetTmpfsSize() > 0 {
		data += ",size=" + strconv.FormatInt(m.GetTmpfsSize(), 10)
	}
	return flags, data + numbers
}

// tmpfsNumber matches the options of a tmpfs that are numbers (tmpfs(5)).
var tmpfsNumber = regexp.MustCompile(`^(uid|gid)=[0-9]{1,10}$|^(nr_inodes|nr_blocks)=[0-9]{1,18}[kmgKMG]?$|^size=[0-9]{1,3}%$`)
