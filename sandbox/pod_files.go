package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nodeagent/nodeagent/internal/atomicfile"
	"github.com/nodeagent/nodeagent/sandbox/namespace"
)

// shmSize is that of a pod's /dev/shm, in bytes.
const shmSize = 64 << 20

// maxHostFile bounds what is copied of the host's files, in bytes.
const maxHostFile = 1 << 20

func (m *Manager) nsPath(id string, kind namespace.Kind) string {
	return filepath.Join(m.nsDir(id), string(kind))
}

func (m *Manager) shmDir(id string) string { return filepath.Join(m.podDir(id), "shm") }

// mountShm mounts the /dev/shm that the pod's containers share, unless they
// use the host's.
func (m *Manager) mountShm(s *podState) error {
	if !slices.Contains(s.Own, namespace.IPC) {
		return nil
	}
	dir := m.shmDir(s.ID)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return m.ns.MountShm(dir, int(cmp.Or(s.ShmSize, shmSize)))
}

// shmPath is what containers see as /dev/shm.
func (m *Manager) shmPath(s *podState) string {
	if !slices.Contains(s.Own, namespace.IPC) {
		return "/dev/shm"
	}
	return m.shmDir(s.ID)
}

// removePodDir removes the pod's folder with all that is mounted in it.
func (m *Manager) removePodDir(id string) error {
	dir := m.podDir(id)
	if err := m.removeMountpoint(m.shmDir(id)); err != nil {
		return err
	}
	if err := m.ns.Unpin(m.nsDir(id)); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}

// removeMountpoint unmounts and removes a folder, and never what is in it.
func (m *Manager) removeMountpoint(dir string) error {
	if err := m.ns.Unmount(dir); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// The files that containers get.
const (
	resolvFile   = "resolv.conf"
	hostnameFile = "hostname"
	hostsFile    = "hosts"
)

// writePodFiles writes the files that containers get to see. The folder is
// on tmpfs and nobody reads it yet, so plain writes do.
func (m *Manager) writePodFiles(s *podState) error {
	resolv, err := resolvConf(s)
	if err != nil {
		return err
	}
	name := s.Hostname
	if name == "" || hostNetwork(s.Config) {
		if name, err = os.Hostname(); err != nil {
			return err
		}
	}
	hosts, err := hostsContent(s, name)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{resolvFile, resolv}, {hostnameFile, []byte(name + "\n")}, {hostsFile, hosts}} {
		path := filepath.Join(m.podDir(s.ID), f.name)
		if err := os.WriteFile(path, f.data, 0o644); err != nil {
			return err
		}
		if len(s.UIDs) > 0 {
			// The containers' root may edit them, as elsewhere.
			if err := os.Chown(path, int(s.UIDs[0].HostID), int(s.GIDs[0].HostID)); err != nil {
				return err
			}
		}
	}
	return nil
}

// resolvConf is made of the DNS settings, or is a copy of the host's when
// there are none.
func resolvConf(s *podState) ([]byte, error) {
	dns := s.Config.GetDnsConfig()
	if len(dns.GetServers())+len(dns.GetSearches())+len(dns.GetOptions()) == 0 {
		return hostFile("/etc/resolv.conf")
	}
	var b strings.Builder
	if list := dns.GetSearches(); len(list) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(list, " "))
	}
	for _, server := range dns.GetServers() {
		fmt.Fprintf(&b, "nameserver %s\n", server)
	}
	if list := dns.GetOptions(); len(list) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(list, " "))
	}
	return []byte(b.String()), nil
}

// hostsContent names the loopback and the pod itself.
func hostsContent(s *podState, name string) ([]byte, error) {
	if hostNetwork(s.Config) {
		return hostFile("/etc/hosts")
	}
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	if s.Network != nil {
		for _, a := range s.Network.Addresses {
			fmt.Fprintf(&b, "%s\t%s\n", a.Addr(), name)
		}
	}
	return []byte(b.String()), nil
}

// hostFile copies a file of the host; a missing one is empty.
func hostFile(path string) ([]byte, error) {
	data, err := atomicfile.Read(path, maxHostFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
