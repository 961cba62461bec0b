package execinit

import (
	"fmt"
	"syscall"
)

// Step is what a start consists of, by the numbers of enum step in C.
type Step uint32

// The steps that a caller may want to know.
const (
	StepRequest    Step = 1
	StepCgroup     Step = 2
	StepNamespaces Step = 4
	StepFork       Step = 5
	// StepFolder and those after it happen in the container, with what the
	// request says.
	StepFolder   Step = 11
	StepOutside  Step = 17
	StepNotFound Step = 19
	StepStat     Step = 20
	StepAccess   Step = 21
	StepExecute  Step = 22
)

// steps are the words for what was to be done.
var steps = [...]string{
	StepRequest: "read request", StepCgroup: "join the container's cgroups", 3: "set oom_score_adj",
	StepNamespaces: "enter the container's namespaces", StepFork: "fork in the container's PID namespace",
	6: "make session", 7: "join session keyring", 8: "set resource limits", 9: "set no_new_privs",
	10: "load seccomp filter", StepFolder: "enter working directory", 12: "limit capabilities",
	13: "change the owner of standard streams", 14: "set groups", 15: "set group", 16: "set user",
	StepOutside: "working directory is outside of the container's root", 18: "set capabilities",
	StepExecute: "exec",
}

// Error is a step that failed.
type Error struct {
	Step Step
	// Err may be zero for a step whose words say it all.
	Err syscall.Errno
	// Program and Dir are the request's.
	Program, Dir string
}

// Error says it in the words that people know from runc where the request is
// at fault, as programs look for them.
func (e *Error) Error() string {
	switch e.Step {
	case StepNotFound:
		return fmt.Sprintf("exec: %q: executable file not found in $PATH", e.Program)
	case StepStat:
		return fmt.Sprintf("exec: %q: stat %s: %v", e.Program, e.Program, e.Err)
	case StepAccess:
		return fmt.Sprintf("exec: %q: %v", e.Program, e.Err)
	case StepExecute:
		return fmt.Sprintf("exec %s: %v", e.Program, e.Err)
	case StepFolder:
		return fmt.Sprintf("%s %q: %v", steps[e.Step], e.Dir, e.Err)
	case StepOutside:
		return fmt.Sprintf("%s: %q", steps[e.Step], e.Dir)
	}
	words := fmt.Sprintf("step %d", e.Step)
	if int(e.Step) < len(steps) && steps[e.Step] != "" {
		words = steps[e.Step]
	}
	return fmt.Sprintf("%s: %v", words, e.Err)
}

// Unwrap returns the kernel's error.
func (e *Error) Unwrap() error { return e.Err }

// Requested tells that what was asked for is at fault: the working directory,
// the program, or the user.
func (e *Error) Requested() bool { return e.Step >= StepFolder && e.Step <= StepExecute }
