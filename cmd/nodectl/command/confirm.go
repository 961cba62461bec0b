package command

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
)

// Confirm warns a person of what is about to go, and asks whether to go on.
// Anything but y is no, and so is nobody there to answer.
func (c *CLI) Confirm(warning string) bool {
	fmt.Fprint(c.Out, warning+"\nAre you sure you want to continue? [y/N] ")
	answer, _ := bufio.NewReader(c.In).ReadString('\n')
	return strings.EqualFold(strings.TrimSpace(answer), "y")
}

// Deleted lists what was pruned; kind is "Networks" or its like.
func (c *CLI) Deleted(kind string, lines []string) {
	if len(lines) > 0 {
		fmt.Fprintf(c.Out, "Deleted %s:\n%s\n\n", kind, strings.Join(lines, "\n"))
	}
}

// Reclaimed says how many bytes that gave back.
func (c *CLI) Reclaimed(bytes int64) {
	fmt.Fprintln(c.Out, "Total reclaimed space: "+format.Total(bytes))
}
