// Package vm runs tests in the virtual machines of hack/vm, on cgroup v2 alone and on Debian's kernel: those of package
// cgroups, and whole pods through agent and supervisor. In one of them systemd is the first process and owns the cgroups.
package vm
