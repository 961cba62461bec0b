package image

import (
	"errors"
	"fmt"
	"io"
	"strings"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/nodeagent/nodeagent/cmd/nodectl/terminal"
)

// barWidth is how many characters a progress bar has.
const barWidth = 50

// progress shows how far a pull or push is: on a terminal a line for each layer that
// is written over, elsewhere a line for each new status.
type progress struct {
	out      io.Writer
	terminal bool
	title    string
	// order holds the layers' digests, last their newest status.
	order []string
	last  map[string]string
}

func newProgress(out io.Writer, title string) *progress {
	width, _ := terminal.Size(out)
	return &progress{out: out, title: title, terminal: width > 0, last: map[string]string{}}
}

// follow shows what the agent tells until next says that it is done.
func (p *progress) follow(next func() (change *nodev1.PullProgress, done bool, err error)) error {
	titled := p.title == ""
	for {
		change, done, err := next()
		if errors.Is(err, io.EOF) {
			return command.ErrLost
		}
		if err != nil {
			return err
		}
		// Not before the registry has answered.
		if !titled {
			fmt.Fprintln(p.out, p.title)
			titled = true
		}
		if done {
			return nil
		}
		p.show(change)
	}
}

// show shows one change.
func (p *progress) show(c *nodev1.PullProgress) {
	id := format.ID(c.GetDigest(), false)
	if !p.terminal {
		if p.last[c.GetDigest()] != c.GetStatus() && !growing(c.GetStatus()) {
			fmt.Fprintf(p.out, "%s: %s\n", id, c.GetStatus())
		}
		p.last[c.GetDigest()] = c.GetStatus()
		return
	}
	text := fmt.Sprintf("%s: %s", id, c.GetStatus())
	width, _ := terminal.Size(p.out) // as it is now
	if growing(c.GetStatus()) && c.GetCurrent() > 0 {
		text += " " + bar(c.GetCurrent(), c.GetTotal(), width-len(text)-1)
	}
	if len(text) >= width {
		text = text[:max(width-1, 0)]
	}
	p.draw(c.GetDigest(), text)
}

// growing says whether a status is one that goes on, shown as a bar.
func growing(status string) bool {
	return status == "Downloading" || status == "Extracting" || status == "Pushing"
}

// draw writes a layer's line over its old one.
func (p *progress) draw(digest, text string) {
	if _, ok := p.last[digest]; !ok {
		p.order = append(p.order, digest)
		p.last[digest] = text
		fmt.Fprintln(p.out, text)
		return
	}
	p.last[digest] = text
	up := 0
	for i, d := range p.order {
		if d == digest {
			up = len(p.order) - i
		}
	}
	// Up to the line, clear it, write it, and down again.
	fmt.Fprintf(p.out, "\x1b[%dA\x1b[2K\r%s\r\x1b[%dB", up, text, up)
}

// bar is a bar with numbers, as wide as there is room.
func bar(current, total int64, room int) string {
	if total <= 0 {
		return format.Size(current)
	}
	current = min(current, total)
	numbers := fmt.Sprintf("%s/%s", format.Total(current), format.Total(total))
	width := min(barWidth, room-len(numbers)-4)
	if width < 5 {
		return numbers
	}
	done := int(int64(width) * current / total)
	head := ">"
	if done == width {
		head = ""
	}
	filled := strings.Repeat("=", done) + head
	return fmt.Sprintf("[%s%s]  %s", filled, strings.Repeat(" ", width-len(filled)), numbers)
}
