package diagnosis

import (
	"regexp"
	"strings"
)

// saying is what a line of output hints at. A container may write what it
// likes, so these are hints and no causes.
type saying struct {
	match *regexp.Regexp
	hint  string
}

var sayings = []saying{
	{regexp.MustCompile(`(?i)read-only file ?system`), "It wrote where it may not: its root, or the volume there, is read-only. Give it a volume where it has to write, or take the read-only off."},
	{regexp.MustCompile(`(?i)no space left on device`), "A disk that it writes to is full. See how full with: df -h; and what takes the room with: nodectl system df"},
	{regexp.MustCompile(`(?i)resource temporarily unavailable|can't fork|cannot fork`), "It could not make a process or a thread. See its limit and how many it has with: nodectl stats (PIDS)"},
	{regexp.MustCompile(`(?i)bad system call`), "A program in it made a system call that its seccomp profile forbids, and was ended for it."},
	{regexp.MustCompile(`(?i)operation not permitted`), "Something in it was not permitted: it lacks a capability, or its seccomp profile forbids the system call."},
	{regexp.MustCompile(`(?i)address already in use|EADDRINUSE`), "The port it wants to listen on is taken. See by whom with: ss -ltnp (with hostNetwork or --network host), or in its own network."},
	{regexp.MustCompile(`(?i)no such host|could not resolve|name or service not known|temporary failure in name resolution|bad address`), "A name was not found by DNS. See whom it asks with: nodectl exec CONTAINER cat /etc/resolv.conf"},
	{regexp.MustCompile(`(?i)too many open files`), "It has as many files open as it may. Raise the limit (nodectl: --ulimit nofile=…)."},
	{regexp.MustCompile(`(?i)permission denied`), "A file's mode or owner keeps it out: look at the user it runs as, and at whose the file or the volume is."},
}

// outputHints adds what its last lines hint at, the last one first, and at
// most two.
func (c Subject) outputHints(s *Story) {
	seen := 0
	for i := len(c.Output) - 1; i >= 0 && seen < 2; i-- {
		line := c.Output[i]
		for _, say := range sayings {
			if say.match.MatchString(line) {
				s.hintOnce(say.hint)
				seen++
				break
			}
		}
	}
}

// execLine is what is written in place of a program that the kernel did not
// run: by then all of the container is made, and only its output is left to
// tell.
var execLine = regexp.MustCompile(`^exec (/?\S+): (no such file or directory|exec format error|permission denied|.+)$`)

// notExecuted says why its program did not run though it was found; "" when
// it did.
func (c Subject) notExecuted(s *Story) string {
	const execFailed = 255
	if c.ExitCode != execFailed || len(c.Output) == 0 {
		return ""
	}
	line := strings.TrimSpace(c.Output[len(c.Output)-1])
	found := execLine.FindStringSubmatch(line)
	if found == nil {
		return ""
	}
	program := found[1]
	switch found[2] {
	case "no such file or directory":
		s.hint("See which one with: nodectl run --rm --entrypoint head %s -n1 %s; if it is a binary, its dynamic loader is missing: put that into the image, or build the program static.", c.image(), program)
		return "Its program was not run: " + program + " is there, but the interpreter that its first line names, or its dynamic loader, is not in the image."
	case "exec format error":
		s.hint("%s", strings.ReplaceAll(wrongKindHint, "IMAGE", c.image()))
		return "Its program was not run: " + program + " was made for another kind of machine, or is a script without a first line such as #!/bin/sh."
	}
	return "Its program was not run: " + line + "."
}

func (c Subject) image() string {
	if c.Names.Image == "" {
		return "IMAGE"
	}
	return c.Names.Image
}
