package cve

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv/pods"
)

// CVE-2021-43784: what the namespaces are set up with is packed into messages whose lengths are of 16 bits, so that a
// long value became a message of its own.
func TestCVE202143784LongConfigurations(t *testing.T) {
	n := newNode(t)
	supervisor := n.Supervisor()
	var many []*runtimeapi.IDMapping
	for i := range 20000 {
		many = append(many, &runtimeapi.IDMapping{HostId: uint32(userID + i), ContainerId: uint32(i), Length: 1})
	}
	config := mapped(n.podConfig())
	config.Linux.SecurityContext.NamespaceOptions.UsernsOptions.Uids = many
	if _, err := n.RunPodError(config); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a pod with %d ranges of users: %v", len(many), err)
	}

	config = n.podConfig()
	pod := n.RunPod(config)
	source, long := t.TempDir(), strings.Repeat("long/", 1<<14)
	for name, change := range map[string]func(*runtimeapi.ContainerConfig){
		"path":    func(c *runtimeapi.ContainerConfig) { c.Mounts = []*runtimeapi.Mount{volume(source, "/"+long)} },
		"workdir": func(c *runtimeapi.ContainerConfig) { c.WorkingDir = "/" + long },
		"mappings": func(c *runtimeapi.ContainerConfig) {
			mount := volume(source, "/data")
			mount.UidMappings, mount.GidMappings = many, many
			c.Mounts = []*runtimeapi.Mount{mount}
		},
	} {
		ctr := pods.Shell(name, "exec sleep 1000")
		change(ctr)
		if _, err := n.StartError(pod, config, ctr); err == nil {
			t.Errorf("a container with a long %s starts", name)
		}
	}
	ctr := idle("after")
	ctr.Annotations = map[string]string{"long": strings.Repeat("x", 1<<17)}
	id := n.Started(pod, config, ctr)
	if got := n.Exec(id, "grep", "NSpid", "/proc/self/status"); strings.Count(got, "\t") != 1 {
		t.Errorf("the process has IDs %q: its namespaces are others than those of its pod", got)
	}
	if now := n.Supervisor(); now != supervisor {
		t.Errorf("the supervisor is process %d, was %d", now, supervisor)
	}
}

// CVE-2021-43816: volumes in the place of the files that a pod has anyway, to be labelled for the container: files of
// the host with the same names keep their content, mode and owner.
func TestCVE202143816FilesOfThePod(t *testing.T) {
	n := newNode(t)
	own := []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log"}
	before := hostFiles(own)
	source := t.TempDir()
	ctr := pods.Shell("files", "for f in "+strings.Join(own, " ")+"; do cat $f; echo of the container > $f; chmod 600 $f; done")
	for _, path := range own {
		file := filepath.Join(source, filepath.Base(path))
		write(t, file, "of the volume\n")
		mount := volume(file, path)
		mount.SelinuxRelabel = true
		ctr.Mounts = append(ctr.Mounts, mount)
	}
	id, logs := n.running(ctr)
	n.Ended(id)
	if got := n.logText(logs + "/" + ctr.LogPath); got != strings.Repeat("of the volume\n", len(own)) {
		t.Errorf("the container saw %q", got)
	}
	if after := hostFiles(own); after != before {
		t.Errorf("the host has\n%s\nhad\n%s", after, before)
	}
}

// hostFiles tells of files what a container may not change.
func hostFiles(paths []string) string {
	var lines []string
	for _, path := range paths {
		text, err := os.ReadFile(path)
		info, _ := os.Lstat(path)
		lines = append(lines, fmt.Sprintf("%s: %q %v", path, text, err))
		if info != nil {
			lines = append(lines, fmt.Sprintf("%v %v", info.Mode(), info.Sys()))
		}
	}
	return strings.Join(lines, "\n")
}
