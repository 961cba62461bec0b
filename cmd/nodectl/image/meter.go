package image

import (
	"fmt"
	"io"

	"github.com/nodeagent/nodeagent/cmd/nodectl/terminal"
)

// meter shows on a terminal how much of a stream was read; elsewhere it says
// nothing.
type meter struct {
	out   io.Writer
	title string
	width int
	total int64
	done  int64
	// shown is what the bar last stood at.
	shown int64
}

// meterStep is how many bytes come between two drawings.
const meterStep = 1 << 20

func newMeter(out io.Writer, title string, total int64, quiet bool) *meter {
	m := &meter{out: out, title: title, total: total}
	if !quiet && terminal.Is(out) {
		m.width, _ = terminal.Size(out)
	}
	return m
}

// of counts what is read.
func (m *meter) of(r io.Reader) io.Reader { return metered{r, m} }

type metered struct {
	io.Reader
	m *meter
}

// Read counts.
func (r metered) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.m.done += int64(n)
	if r.m.width > 0 && r.m.done-r.m.shown >= meterStep {
		r.m.shown = r.m.done
		fmt.Fprintf(r.m.out, "\r\x1b[2K%s %s", r.m.title, bar(r.m.done, r.m.total, r.m.width-len(r.m.title)-2))
	}
	return n, err
}

// end takes the bar away.
func (m *meter) end() {
	if m.shown > 0 {
		fmt.Fprint(m.out, "\r\x1b[2K")
	}
}
