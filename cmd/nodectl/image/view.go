package image

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/distribution/reference"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/cmd/nodectl/format"
	"github.com/nodeagent/nodeagent/cmd/nodectl/terminal"
)

const (
	// untagged stands in the view where an image has no name.
	untagged = "<untagged>"
	// viewGap is what is between columns, and narrowest the width below
	// which the names get all of a terminal.
	viewGap   = "   "
	narrowest = 12
)

// The colours of a terminal: names, headers, the chip of what is in use, and
// their end.
const (
	nameColor   = "\x1b[34;1m"
	headerColor = "\x1b[1m"
	chipColor   = "\x1b[38;5;0m\x1b[48;5;14m"
	noColor     = "\x1b[0m"
)

// view is what docker shows of images unless asked for something else: a line
// for each name or, when expanded, one for each image with a line below for
// its platform.
type view struct {
	out      io.Writer
	expanded bool
	// width is the terminal's; zero is a file or a pipe, without a limit.
	width   int
	colored bool
	entries []entry
	columns []viewColumn
}

// entry is one image, or one name of it.
type entry struct {
	names []string
	cells []string
	// platform, when not empty, is that of the line below, with its cells.
	platform      string
	platformCells []string
}

// key is what entries are sorted by.
func (e entry) key() string {
	if e.names[0] == untagged {
		return "\xff"
	}
	return e.names[0]
}

// viewColumn is a column after the names, which are the first.
type viewColumn struct {
	title string
	width int
	right bool
}

// newView collects what is shown of images.
func newView(out io.Writer, images []*nodev1.Image, patterns []string, expanded bool) *view {
	v := &view{out: out, expanded: expanded}
	v.width, _ = terminal.Size(out)
	v.colored = v.width > 0 && os.Getenv("NO_COLOR") == ""
	for _, img := range images {
		e := entry{names: viewNames(img, patterns), cells: v.cells(img, img.GetId())}
		if expanded {
			e.platform, e.platformCells = img.GetPlatform(), v.cells(img, img.GetManifest())
			v.entries = append(v.entries, e)
			continue
		}
		for _, name := range e.names {
			v.entries = append(v.entries, entry{names: []string{name}, cells: e.cells})
		}
	}
	// By name; those without one come last.
	slices.SortStableFunc(v.entries, func(a, b entry) int {
		return strings.Compare(a.key(), b.key())
	})
	v.arrange()
	return v
}

// viewNames are an image's tags that were asked for. One that has none is
// called by its repository and the beginning of its digest.
func viewNames(img *nodev1.Image, patterns []string) []string {
	var names []string
	for _, tag := range img.GetTags() {
		if len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { return matches(tag, p) }) {
			names = append(names, Familiar(tag))
		}
	}
	slices.Sort(names)
	if len(names) > 0 {
		return names
	}
	for _, text := range img.GetDigests() {
		if ref, err := reference.ParseNormalizedNamed(text); err == nil {
			if d, ok := ref.(reference.Digested); ok {
				return []string{reference.FamiliarName(ref) + "@" + d.Digest().Algorithm().String() + ":" + format.ID(d.Digest().String(), false)}
			}
		}
	}
	return []string{untagged}
}

// cells are an image's columns, or with the ID of its manifest those of its
// platform.
func (v *view) cells(img *nodev1.Image, id string) []string {
	used := ""
	if img.GetContainers() > 0 {
		used = "U"
		if v.colored {
			used = v.paint(chipColor, " U ")
		}
	}
	return []string{format.ID(id, false), format.Size(diskUsage(img)), format.Size(img.GetContentSize()), used}
}

// arrange gives the names what the other columns leave of the width, and
// leaves columns out where that is too little.
func (v *view) arrange() {
	columns := []viewColumn{{"ID", 12, false}, {"DISK USAGE", 10, true}, {"CONTENT SIZE", 12, true}, {"EXTRA", 5, false}}
	names := len("IMAGE")
	for _, e := range v.entries {
		for _, name := range e.names {
			names = max(names, utf8.RuneCountInString(name))
		}
		if e.platform != "" {
			names = max(names, utf8.RuneCountInString(lastBranch+e.platform))
		}
	}
	if v.width > 0 {
		left := max(v.width, 20)
		for i, c := range columns {
			if left-c.width-len(viewGap) < narrowest {
				columns = columns[:i]
				break
			}
			left -= c.width + len(viewGap)
		}
		names = min(names, left)
	}
	v.columns = append([]viewColumn{{"IMAGE", names, false}}, columns...)
}

// lastBranch is drawn before the last line of a tree.
const lastBranch = "└─ "

// write writes the view.
func (v *view) write() error {
	var b strings.Builder
	if v.width > 0 {
		// The legend is for people, who may not know what U means.
		const legend = "i Info →  U  In Use"
		b.WriteString(strings.Repeat(" ", max(v.width-utf8.RuneCountInString(legend), 0)))
		b.WriteString(strings.Replace(legend, " U ", v.paint(chipColor, " U "), 1) + "\n")
	}
	v.line(&b, headerColor, "IMAGE", headerCells)
	for i, e := range v.entries {
		if v.expanded && i > 0 {
			b.WriteByte('\n')
		}
		v.entry(&b, e)
	}
	_, err := fmt.Fprint(v.out, b.String())
	return err
}

// headerCells are the headers after that of the names.
var headerCells = []string{"ID", "DISK USAGE", "CONTENT SIZE", "EXTRA"}

// entry writes an image: its names, with the columns beside the last one, or
// below it when it is too wide.
func (v *view) entry(b *strings.Builder, e entry) {
	for i, name := range e.names {
		wide := utf8.RuneCountInString(name) > v.columns[0].width
		switch last := i == len(e.names)-1; {
		case last && !wide:
			v.line(b, nameColor, name, e.cells)
		case last:
			b.WriteString(v.paint(nameColor, name) + "\n")
			v.line(b, "", "", e.cells)
		default:
			b.WriteString(v.paint(nameColor, name) + "\n")
		}
	}
	if e.platform != "" {
		v.line(b, "", lastBranch+e.platform, e.platformCells)
	}
}

// line writes one line: a name and the columns.
func (v *view) line(b *strings.Builder, color, name string, cells []string) {
	line := v.paint(color, name) + strings.Repeat(" ", max(v.columns[0].width-utf8.RuneCountInString(name), 0))
	for i, c := range v.columns[1:] {
		cell := cells[i]
		fill := strings.Repeat(" ", max(c.width-len(cell), 0))
		if color == headerColor {
			cell = v.paint(headerColor, cell)
		}
		if c.right {
			line += viewGap + fill + cell
		} else {
			line += viewGap + cell + fill
		}
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
}

// paint colours text on a terminal.
func (v *view) paint(color, text string) string {
	if !v.colored || color == "" || text == "" {
		return text
	}
	return color + text + noColor
}

// diskUsage is what an image takes: its layers unpacked, and its blobs.
func diskUsage(img *nodev1.Image) int64 { return img.GetSize() + img.GetContentSize() }
