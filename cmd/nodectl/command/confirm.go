package command

import (
	"bufio"
	"fmt"
	"strings"
)

// Confirm asks a person whether to go on. Anything but y is no, and so is
// nobody there to answer.
func (c *CLI) Confirm(question string) bool {
	fmt.Fprint(c.Out, question+" [y/N] ")
	answer, _ := bufio.NewReader(c.In).ReadString('\n')
	return strings.EqualFold(strings.TrimSpace(answer), "y")
}
