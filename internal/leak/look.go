package leak

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/vishvananda/netlink"
)

func mounts() ([]string, error) {
	infos, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, info := range infos {
		lines = append(lines, fmt.Sprintf("%s %s on %s", info.FSType, info.Source, info.Mountpoint))
	}
	return lines, nil
}

// namespaces lists the names that ip-netns(8) and CNI tools give to namespaces; pinned ones are mounts as well.
func namespaces() ([]string, error) { return entries("/run/netns") }

func links() ([]string, error) {
	found, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, link := range found {
		lines = append(lines, link.Type()+" "+link.Attrs().Name)
	}
	return lines, nil
}

func addresses() ([]string, error) {
	found, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, address := range found {
		lines = append(lines, address.IPNet.String()+" of link "+strconv.Itoa(address.LinkIndex))
	}
	return lines, nil
}

func routes() ([]string, error) {
	found, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, route := range found {
		lines = append(lines, fmt.Sprintf("%v by %v of link %d", route.Dst, route.Gw, route.LinkIndex))
	}
	return lines, nil
}

func cgroupDirs() ([]string, error) {
	var lines []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			lines = append(lines, path)
		}
		return err
	})
	return lines, err
}

// processes lists this project's programs, the children of this process, and whatever is in a test's cgroup.
func processes() ([]string, error) {
	var lines []string
	found, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, entry := range found {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || !ours(pid) {
			continue
		}
		// Arguments are not part of the line: a process rewrites its own.
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		lines = append(lines, fmt.Sprintf("%d %s", pid, strings.TrimSpace(string(comm))))
	}
	return lines, nil
}

func ours(pid int) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return false // a kernel thread, a zombie, or gone
	}
	switch filepath.Base(strings.TrimSuffix(exe, " (deleted)")) {
	case "nodeagent", "nodesupervisor", "docker-registry":
		return true
	}
	if strings.HasPrefix(exe, "/memfd:") {
		return true
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", os.Getpid())) {
		return true
	}
	cgroup, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return strings.Contains(string(cgroup), "/nodeagent-test-")
}

// sharedFiles lists the entries of folders that parts of this project and CNI plugins leave files in.
func sharedFiles() ([]string, error) {
	var lines []string
	for _, dir := range []string{"/run", "/var/lib", "/run/cni", "/var/lib/cni", "/var/lib/cni/networks"} {
		names, err := entries(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			lines = append(lines, filepath.Join(dir, name))
		}
	}
	return lines, nil
}

// descriptors counts what this process has open, by kind: the numbers behind sockets and pipes differ each time.
func descriptors() ([]string, error) {
	names, err := entries("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, name := range names {
		target, err := os.Readlink("/proc/self/fd/" + name)
		if err != nil {
			continue // the one that read the folder
		}
		kind, _, _ := strings.Cut(target, ":[")
		if kind == "anon_inode:" || strings.HasPrefix(kind, "anon_inode:[event") {
			continue // the runtime's poller, opened when it is first used
		}
		lines = append(lines, kind)
	}
	return lines, nil
}

// entries lists a folder's names; a folder that is not there has none.
func entries(dir string) ([]string, error) {
	found, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, entry := range found {
		names = append(names, entry.Name())
	}
	return names, err
}
