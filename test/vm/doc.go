// Package vm runs tests in the virtual machine of hack/vm, on cgroup v2 alone and on Debian's kernel: those of package
// cgroups, and a whole pod through agent and supervisor.
package vm
