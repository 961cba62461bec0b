// Package cgroupjoin has the init of an exec move itself into cgroups of v1
// before its Go runtime starts.
//
// Moving another process, or one with several threads, makes the kernel wait
// until every processor has passed through a quiet state: 5 to 80 ms, with the
// lock of all cgroups held. A process with one thread moves itself without
// (kernel/cgroup/cgroup.c, cgroup_procs_write_start). libcontainer hands a
// process nothing of ours but its log level, so that is where the list of
// files is added, and taken off again by a constructor in C.
package cgroupjoin

import "strings"

// separator cannot be part of a cgroup's name.
const separator = "\n"

// LogLevel gives the log level to have libcontainer hand to an init that is to
// write itself to files, the "tasks" of cgroups.
func LogLevel(level string, files []string) string {
	return strings.Join(append([]string{level}, files...), separator)
}
