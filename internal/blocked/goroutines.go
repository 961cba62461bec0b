package blocked

import (
	"bufio"
	"bytes"
	"runtime/pprof"
	"slices"
	"strings"
)

// InKernel begins the description of a goroutine in a system call.
const InKernel = "system call"

// OnSupervisor begins that of one that waits for the supervisor.
const OnSupervisor = "the supervisor's answer"

// ProgramLabel marks a goroutine that runs a program and waits for it, with
// the program's name.
const ProgramLabel = "program"

// maxFrames is how many of our functions of a goroutine are named.
const maxFrames = 3

// module begins the names of our own functions.
const module = "github.com/nodeagent/nodeagent/"

// Goroutines says where the goroutines are that have this label
// (runtime/pprof.Do), by its value: the innermost of our functions first.
func Goroutines(label string) map[string][]string {
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		return nil
	}
	return parseProfile(profile.Bytes(), label)
}

// parseProfile reads a goroutine profile in its text form: groups of
// goroutines apart by empty lines, each with a line of labels and frames.
func parseProfile(profile []byte, label string) map[string][]string {
	found := map[string][]string{}
	for group := range bytes.SplitSeq(profile, []byte("\n\n")) {
		value, program, frames := "", "", []string(nil)
		lines := bufio.NewScanner(bytes.NewReader(group))
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			line := lines.Text()
			if labels, ok := strings.CutPrefix(line, "# labels: "); ok {
				value, program = labelValue(labels, label), labelValue(labels, ProgramLabel)
			} else if fields := strings.Split(line, "\t"); len(fields) >= 3 && fields[0] == "#" {
				frames = append(frames, function(fields[2]))
			}
		}
		if value == "" || len(frames) == 0 {
			continue
		}
		if place := describe(frames, program); place != "" && !slices.Contains(found[value], place) {
			found[value] = append(found[value], place)
		}
	}
	return found
}

// labelValue finds a label in {"name":"value", …}; the values we set need no
// escapes.
func labelValue(labels, name string) string {
	_, rest, ok := strings.Cut(labels, `"`+name+`":"`)
	if !ok {
		return ""
	}
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

// function takes the offset off a frame.
func function(frame string) string {
	name, _, _ := strings.Cut(strings.TrimSpace(frame), "+0x")
	return name
}

// describe says where a goroutine is, such as "system call < sandbox.open <
// sandbox.run". One that only waits for others of its operation is nothing.
func describe(frames []string, program string) string {
	var parts []string
	switch leaf := frames[0]; {
	case slices.ContainsFunc(frames, func(f string) bool {
		return strings.HasPrefix(f, "os/exec.(*Cmd).Wait") || strings.HasPrefix(f, "os.(*Process).")
	}):
		parts = append(parts, "the program it runs")
		if program != "" {
			parts[0] = "the program " + program
		}
	case strings.HasPrefix(leaf, "syscall.") || strings.HasPrefix(leaf, "golang.org/x/sys/unix.") || strings.HasPrefix(leaf, "internal/runtime/syscall"):
		parts = append(parts, InKernel)
	case slices.ContainsFunc(frames, func(f string) bool { return strings.HasPrefix(f, "sync.(*WaitGroup).Wait") }):
		return ""
	case slices.ContainsFunc(frames, func(f string) bool { return strings.Contains(f, "ttrpc.(*Client)") }):
		parts = append(parts, OnSupervisor)
	case slices.ContainsFunc(frames, func(f string) bool {
		return strings.HasPrefix(f, "sync.(*Mutex)") || strings.HasPrefix(f, "sync.(*RWMutex)")
	}):
		parts = append(parts, "a lock")
	}
	ours := 0
	for _, f := range frames {
		name, ok := strings.CutPrefix(f, module)
		if !ok || ours == maxFrames {
			continue
		}
		parts = append(parts, name)
		ours++
	}
	return strings.Join(parts, " < ")
}
