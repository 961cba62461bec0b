package cgroups

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxMountinfo bounds /proc/self/mountinfo: a line has some 200 bytes, and a
// node has at most some ten thousand mounts.
const maxMountinfo = 16 << 20

// discover lists the cgroup hierarchies mounted at or below root.
func discover(root string) ([]*hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	defer f.Close()
	found, err := parseMountinfo(f, root)
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	for _, h := range found {
		if !h.v2 {
			continue
		}
		list, err := readFile(h.dir("/cgroup.controllers"))
		if err != nil {
			return nil, fmt.Errorf("find cgroups: %w", err)
		}
		h.controllers = strings.Fields(string(list))
	}
	return found, nil
}

// v1Controllers are the names among a v1 mount's options that are controllers.
var v1Controllers = []string{
	"blkio", "cpu", "cpuacct", "cpuset", "debug", "devices", "freezer", "hugetlb",
	"memory", "misc", "net_cls", "net_prio", "perf_event", "pids", "rdma",
}

// parseMountinfo finds the cgroup mounts at or below root, each hierarchy
// once: of several mounts of one, the first counts. Lines it cannot read are
// not cgroups. See Documentation/filesystems/proc.rst, section 3.5.
func parseMountinfo(r io.Reader, root string) ([]*hierarchy, error) {
	var out []*hierarchy
	seen := make(map[string]bool)
	scanner := bufio.NewScanner(io.LimitReader(r, maxMountinfo))
	// An overlay on many layers has a long line, which must not be the end.
	scanner.Buffer(make([]byte, 0, 4096), maxMountinfo)
	for scanner.Scan() {
		h, key := parseMount(scanner.Text())
		if h == nil || seen[key] || !within(h.mountpoint, root) {
			continue
		}
		seen[key] = true
		out = append(out, h)
	}
	return out, scanner.Err()
}

// parseMount reads one line; key names the hierarchy. It gives nil for other
// file systems.
func parseMount(line string) (_ *hierarchy, key string) {
	before, after, ok := strings.Cut(line, " - ")
	if !ok {
		return nil, ""
	}
	left, right := strings.Fields(before), strings.Fields(after)
	if len(left) < 6 || len(right) < 3 {
		return nil, ""
	}
	h := &hierarchy{mountpoint: unescape(left[4])}
	if !filepath.IsAbs(h.mountpoint) {
		return nil, ""
	}
	switch right[0] {
	case "cgroup2":
		h.v2 = true
		return h, "cgroup2"
	case "cgroup":
	default:
		return nil, ""
	}
	for option := range strings.SplitSeq(right[2], ",") {
		if slices.Contains(v1Controllers, option) {
			h.controllers = append(h.controllers, option)
		} else if strings.HasPrefix(option, "name=") {
			key = option
		}
	}
	if len(h.controllers) == 0 && key == "" {
		return nil, ""
	}
	return h, key + ":" + strings.Join(h.controllers, ",")
}

// unescape undoes the octal escapes of mountinfo (\040 is a space).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return c >= '0' && c <= '7' }

// within tells whether p is root or below it.
func within(p, root string) bool {
	return p == root || strings.HasPrefix(p, strings.TrimSuffix(root, "/")+"/")
}
