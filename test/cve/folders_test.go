package cve

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// CVE-2021-41103, CVE-2021-41091, CVE-2024-25621: folders that let users of the machine reach what is in containers. Nobody but root
// gets into any of ours, except that the root of a user namespace passes to the root filesystem.
func TestCVE202141103FoldersAndSockets(t *testing.T) {
	n := newNode(t)
	plain, own := n.podConfig(), mapped(n.podConfig())
	n.Started(n.RunPod(plain), plain, idle("plain"))
	n.Started(n.RunPod(own), own, idle("mapped"))
	for folder, want := range map[string]os.FileMode{n.Root: 0o700, n.State: 0o711} {
		if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", folder, info.Mode(), err)
		}
	}
	passable := []string{n.State, filepath.Join(n.State, "containers")}
	reachable(t, n.State, passable)
	entries, err := os.ReadDir(passable[1])
	n.Must("list containers", err)
	for _, entry := range entries {
		info, err := entry.Info()
		n.Must("look at container", err)
		if uid := info.Sys().(*syscall.Stat_t).Uid; info.Mode().Perm() != 0o700 || (uid != 0 && uid != userID) {
			t.Errorf("%s: mode %v, user %d", entry.Name(), info.Mode(), uid)
		}
	}
	sockets := 0
	for _, folder := range []string{n.State, filepath.Dir(n.Socket)} {
		sockets += checkSockets(t, folder)
	}
	if sockets < 2 {
		t.Errorf("%d sockets found", sockets)
	}
}

// reachable walks what users without any right can reach; they may pass through the passable folders and do no more.
func reachable(t *testing.T, dir string, passable []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		info, err := entry.Info()
		if err != nil {
			continue
		}
		allowed := os.FileMode(0)
		if slices.Contains(passable, path) {
			allowed = 0o011
		}
		if extra := info.Mode().Perm() & 0o077 &^ allowed; extra != 0 && entry.Type() != fs.ModeSymlink {
			t.Errorf("%s: mode %v", path, info.Mode())
		}
		if entry.IsDir() && slices.Contains(passable, path) {
			reachable(t, path, passable)
		}
	}
}

// checkSockets checks that the sockets in a folder and below are root's alone, and counts them. It enters no mount.
func checkSockets(t *testing.T, folder string) (count int) {
	t.Helper()
	var top syscall.Stat_t
	if err := syscall.Stat(folder, &top); err != nil {
		t.Fatal(err)
	}
	_ = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		var st syscall.Stat_t
		if syscall.Lstat(path, &st) != nil || (entry.IsDir() && st.Dev != top.Dev) {
			return filepath.SkipDir
		}
		if entry.Type() == fs.ModeSocket {
			count++
			if st.Mode&0o077 != 0 || st.Uid != 0 {
				t.Errorf("%s: mode %o, user %d", path, st.Mode, st.Uid)
			}
		}
		return nil
	})
	return count
}

// CVE-2020-15257: sockets without a path, which every process in the host's network can connect to, be it in a
// container or not.
func TestCVE202015257NoAbstractSockets(t *testing.T) {
	n := newNode(t)
	config := n.podConfig()
	config.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_NODE
	ctr := pods.Shell("host", "exec sleep 1000")
	ctr.Linux.SecurityContext = &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: config.Linux.SecurityContext.NamespaceOptions}
	id := n.Started(n.RunPod(config), config, ctr)
	ours := map[string]bool{}
	for _, pid := range []int{n.Pid(), n.Supervisor()} {
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, link := range links {
			if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, "socket:") {
				ours[strings.Trim(strings.TrimPrefix(target, "socket:"), "[]")] = true
			}
		}
	}
	seen := 0
	for line := range strings.Lines(n.Exec(id, "cat", "/proc/net/unix")) {
		fields := strings.Fields(line)
		if len(fields) < 7 || !ours[fields[6]] {
			continue
		}
		seen++
		if len(fields) > 7 && strings.HasPrefix(fields[7], "@") {
			t.Errorf("the socket %s has no path", fields[7])
		}
	}
	if seen == 0 {
		t.Error("none of the sockets is of the host's network, where the container is said to be")
	}
}

// CVE-2024-5154, CVE-2025-0750: logs outside of the pod's folder.
func TestCVE20245154LogPaths(t *testing.T) {
	n := newNode(t)
	config := n.podConfig()
	pod := n.RunPod(config)
	outside := t.TempDir()
	n.Must("make log folder", os.MkdirAll(config.LogDirectory, 0o755))
	n.Must("link", os.Symlink(outside, filepath.Join(config.LogDirectory, "linked")))
	n.Must("link", os.Symlink(filepath.Join(outside, "file.log"), filepath.Join(config.LogDirectory, "file.log")))
	for _, path := range []string{"../escaped.log", "a/../../escaped.log", "/escaped.log", "linked/escaped.log", "linked/new/escaped.log", "file.log"} {
		ctr := pods.Shell("escaping", "true")
		ctr.LogPath = path
		if _, err := n.StartError(pod, config, ctr); err == nil {
			t.Errorf("%s is taken", path)
		}
		ctr.Metadata.Attempt++
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
		t.Errorf("written outside: %v, %v", entries, err)
	}
	absent(t, filepath.Join(n.logs, "escaped.log"))
	for _, directory := range []string{"relative", "../relative"} {
		bad := n.podConfig()
		bad.LogDirectory = directory
		if _, err := n.RunPodError(bad); err == nil {
			t.Errorf("log directory %s is taken", directory)
		}
	}
}
