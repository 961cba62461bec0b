package recorder

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/containerd/errdefs"
)

// Kind says what an Entry tells of.
type Kind string

// The kinds of entries.
const (
	// KindMade introduces a pod or a container: its names stand in it.
	KindMade Kind = "made"
	// KindCall is a call of the CRI or the node API.
	KindCall Kind = "call"
	// KindOperation is a sequence, with the time of each of its steps.
	KindOperation Kind = "operation"
	// KindSlow is an operation that takes suspiciously long.
	KindSlow Kind = "slow"
	// KindSignal is a signal that was sent.
	KindSignal Kind = "signal"
	// KindOOM tells that the kernel's OOM killer killed Count processes.
	KindOOM Kind = "oom"
	// KindExit is the end of a container, with what it used and wrote last.
	KindExit Kind = "exit"
	// KindGone tells that a pod or a container was removed.
	KindGone Kind = "gone"
	// KindAgent is about the agent itself: its start and its end.
	KindAgent Kind = "agent"
)

// Bounds of one entry, in bytes; what is longer is cut.
const (
	maxText  = 2 << 10
	maxLine  = 512
	maxLines = 20
	maxSteps = 64
	// maxEntry is more than the above can come to.
	maxEntry = 64 << 10
)

// Entry is one thing that happened. What it does not have is left empty.
type Entry struct {
	At   time.Time     `json:"at"`
	Took time.Duration `json:"took,omitempty"`
	Kind Kind          `json:"kind"`
	// Pod and Container are whole IDs.
	Pod       string `json:"pod,omitempty"`
	Container string `json:"container,omitempty"`
	// What is the method, the operation or the signal.
	What string `json:"what,omitempty"`
	// By says who asked for it.
	By string `json:"by,omitempty"`
	// Text is anything else in words, and Error why it failed.
	Text  string `json:"text,omitempty"`
	Error string `json:"error,omitempty"`
	// Count is how many there were; zero when nobody counted.
	Count uint64 `json:"count,omitempty"`
	Names *Names `json:"names,omitempty"`
	// Steps follow one another; Within are parts of them, which may have been
	// done side by side.
	Steps  []Step `json:"steps,omitempty"`
	Within []Step `json:"within,omitempty"`
	Exit   *Exit  `json:"exit,omitempty"`
}

// Names are what an object was called when it was made.
type Names struct {
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod,omitempty"`
	Container string `json:"container,omitempty"`
	Attempt   uint32 `json:"attempt,omitempty"`
	Image     string `json:"image,omitempty"`
	// Owner is "cri" or "nodectl".
	Owner string `json:"owner,omitempty"`
}

// Step is one step of an operation.
type Step struct {
	Name string        `json:"name"`
	Took time.Duration `json:"took"`
}

// Exit is how a container ended and what it used. Zero means unknown or none.
type Exit struct {
	Code      int           `json:"code"`
	Signal    string        `json:"signal,omitempty"`
	Reason    string        `json:"reason,omitempty"`
	OOMKilled bool          `json:"oomKilled,omitempty"`
	Ran       time.Duration `json:"ran,omitempty"`
	Usage     Usage         `json:"usage,omitzero"`
	// Log are the last lines that it wrote.
	Log []string `json:"log,omitempty"`
}

// Usage is what a container used so far; limits of zero are none.
type Usage struct {
	MemoryPeak       uint64        `json:"memoryPeak,omitempty"`
	MemoryLimit      uint64        `json:"memoryLimit,omitempty"`
	OOMKills         uint64        `json:"oomKills,omitempty"`
	CPU              time.Duration `json:"cpu,omitempty"`
	Throttled        time.Duration `json:"throttled,omitempty"`
	Periods          uint64        `json:"periods,omitempty"`
	ThrottledPeriods uint64        `json:"throttledPeriods,omitempty"`
	// PIDsRefused counts processes and threads that PIDsLimit kept from being
	// made.
	PIDsLimit   uint64 `json:"pidsLimit,omitempty"`
	PIDsRefused uint64 `json:"pidsRefused,omitempty"`
}

var table = crc32.MakeTable(crc32.Castagnoli)

// sumLength is that of the checksum and the blank after it.
const sumLength = 9

// encode appends the line of an entry to b.
func encode(b *bytes.Buffer, e Entry) error {
	e.bound()
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode entry: %w", err)
	}
	if len(body) > maxEntry-sumLength-1 {
		return fmt.Errorf("entry of %d bytes is too long", len(body))
	}
	fmt.Fprintf(b, "%08x ", crc32.Checksum(body, table))
	b.Write(body)
	b.WriteByte('\n')
	return nil
}

// decode reads a line without its newline. ok is false for one that is
// damaged.
func decode(line []byte) (e Entry, ok bool) {
	if len(line) < sumLength || line[sumLength-1] != ' ' {
		return e, false
	}
	var sum [4]byte
	if _, err := hex.Decode(sum[:], line[:sumLength-1]); err != nil {
		return e, false
	}
	body := line[sumLength:]
	want := uint32(sum[0])<<24 | uint32(sum[1])<<16 | uint32(sum[2])<<8 | uint32(sum[3])
	if crc32.Checksum(body, table) != want || json.Unmarshal(body, &e) != nil {
		return Entry{}, false
	}
	return e, true
}

// bound cuts what is too long.
func (e *Entry) bound() {
	e.What, e.By = cut(e.What, maxLine), cut(e.By, maxLine)
	e.Text, e.Error = cut(e.Text, maxText), cut(e.Error, maxText)
	if e.Names != nil {
		n := *e.Names
		n.Namespace, n.Pod, n.Container, n.Image = cut(n.Namespace, maxLine), cut(n.Pod, maxLine), cut(n.Container, maxLine), cut(n.Image, maxLine)
		e.Names = &n
	}
	e.Steps = e.Steps[:min(len(e.Steps), maxSteps)]
	e.Within = e.Within[:min(len(e.Within), maxSteps)]
	if e.Exit != nil && len(e.Exit.Log) > 0 {
		exit := *e.Exit
		exit.Log = nil
		for _, line := range e.Exit.Log[max(0, len(e.Exit.Log)-maxLines):] {
			exit.Log = append(exit.Log, cut(line, maxLine))
		}
		e.Exit = &exit
	}
}

// Words is an error in words, without those of its kind at the end where the
// text is complete without them; "" for nil.
func Words(err error) string {
	if err == nil {
		return ""
	}
	return Plain(err.Error())
}

// Plain takes the words of an error's kind off the end of a text.
func Plain(text string) string {
	for _, kind := range []error{errdefs.ErrInvalidArgument, errdefs.ErrFailedPrecondition, errdefs.ErrUnavailable, errdefs.ErrInternal} {
		if short := strings.TrimSuffix(text, ": "+kind.Error()); strings.Contains(short, ": ") {
			text = short
		}
	}
	return text
}

// cut shortens text to about n bytes, and makes it valid UTF-8.
func cut(text string, n int) string {
	if len(text) <= n && utf8.ValidString(text) {
		return text
	}
	rest := len(text) - n
	text = string(bytes.ToValidUTF8([]byte(text[:min(n, len(text))]), []byte("?")))
	if rest > 0 {
		text += "… (" + strconv.Itoa(rest) + " bytes more)"
	}
	return text
}
