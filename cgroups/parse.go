package cgroups

import (
	"bytes"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"
)

// unlimited is from where on v1's figures mean "no limit": the kernel writes
// the largest number of pages that fits.
const unlimited = math.MaxInt64 / 4096 * 4096

// parsePIDs reads cgroup.procs. A zero stands for a process outside the
// caller's PID namespace and is left out.
func parsePIDs(data []byte) ([]int, error) {
	var out []int
	for line := range lines(data) {
		pid, err := strconv.Atoi(line)
		if err != nil || pid < 0 {
			return nil, fmt.Errorf("%.40q is not a process ID", line)
		}
		if pid != 0 {
			out = append(out, pid)
		}
	}
	return out, nil
}

// parseNumber reads a file of one number; "max", and -1 for a limit, is 0.
func parseNumber(data []byte) (uint64, error) {
	s := string(bytes.TrimSpace(data))
	if s == "max" || s == "-1" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%.40q is not a number", s)
	}
	return n, nil
}

// parseFlat reads a flat keyed file such as memory.stat, "KEY VALUE" on each
// line. Lines that are not so are passed over: kernels add some.
func parseFlat(data []byte) map[string]uint64 {
	out := make(map[string]uint64)
	for line := range lines(data) {
		key, val, ok := strings.Cut(line, " ")
		if n, err := strconv.ParseUint(val, 10, 64); ok && err == nil {
			out[key] = n
		}
	}
	return out
}

// field is where a value of a flat keyed file goes.
type field struct {
	key string
	to  *uint64
}

// parseFields reads some values of a flat keyed file, and leaves what is not
// there as it is.
func parseFields(data []byte, fields []field) {
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		key, val, ok := bytes.Cut(line, []byte(" "))
		if !ok {
			continue
		}
		for _, f := range fields {
			if string(key) != f.key {
				continue
			}
			if n, err := strconv.ParseUint(string(val), 10, 64); err == nil {
				*f.to = n
			}
		}
	}
}

// parseNumbers reads numbers between blanks.
func parseNumbers(data []byte) []uint64 {
	var out []uint64
	for _, f := range strings.Fields(string(data)) {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return nil
		}
		out = append(out, n)
	}
	return out
}

// parseDevice reads "MAJOR:MINOR".
func parseDevice(s string) (major, minor uint64, ok bool) {
	a, b, ok := strings.Cut(s, ":")
	if !ok {
		return 0, 0, false
	}
	major, err := strconv.ParseUint(a, 10, 32)
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.ParseUint(b, 10, 32)
	return major, minor, err == nil
}

// device names a block device.
type device struct{ major, minor uint64 }

// ioTable collects figures by device in the order of their first appearance.
type ioTable struct {
	order []device
	by    map[device]*IOStats
}

func (t *ioTable) at(major, minor uint64) *IOStats {
	d := device{major, minor}
	if s := t.by[d]; s != nil {
		return s
	}
	if t.by == nil {
		t.by = make(map[device]*IOStats)
	}
	t.by[d] = &IOStats{Major: major, Minor: minor}
	t.order = append(t.order, d)
	return t.by[d]
}

func (t *ioTable) list() []IOStats {
	var out []IOStats
	for _, d := range t.order {
		out = append(out, *t.by[d])
	}
	return out
}

// parseBlkio reads a v1 file of lines "MAJOR:MINOR Read 123", telling bytes
// or operations.
func parseBlkio(data []byte, t *ioTable, ops bool) {
	for line := range lines(data) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		major, minor, ok := parseDevice(f[0])
		n, err := strconv.ParseUint(f[2], 10, 64)
		if !ok || err != nil {
			continue
		}
		s := t.at(major, minor)
		switch {
		case f[1] == "Read" && ops:
			s.ReadOps = n
		case f[1] == "Write" && ops:
			s.WriteOps = n
		case f[1] == "Read":
			s.ReadBytes = n
		case f[1] == "Write":
			s.WriteBytes = n
		}
	}
}

// parseIOStat reads v2's io.stat: "MAJOR:MINOR rbytes=1 wbytes=2 rios=3 wios=4 …".
func parseIOStat(data []byte, t *ioTable) {
	for line := range lines(data) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		major, minor, ok := parseDevice(f[0])
		if !ok {
			continue
		}
		s := t.at(major, minor)
		for _, pair := range f[1:] {
			key, val, _ := strings.Cut(pair, "=")
			n, err := strconv.ParseUint(val, 10, 64)
			if err != nil {
				continue
			}
			switch key {
			case "rbytes":
				s.ReadBytes = n
			case "wbytes":
				s.WriteBytes = n
			case "rios":
				s.ReadOps = n
			case "wios":
				s.WriteOps = n
			}
		}
	}
}

// parsePSI reads a pressure file: "some avg10=0.00 avg60=0.00 avg300=0.00
// total=0" and, but for old kernels' CPU, the same for full.
func parsePSI(data []byte) (PSIStats, error) {
	var out PSIStats
	for line := range lines(data) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		var l *PSILine
		switch f[0] {
		case "some":
			l = &out.Some
		case "full":
			l = &out.Full
		default:
			continue
		}
		for _, pair := range f[1:] {
			if err := l.set(pair); err != nil {
				return PSIStats{}, err
			}
		}
	}
	return out, nil
}

func (l *PSILine) set(pair string) error {
	key, val, _ := strings.Cut(pair, "=")
	var avg *float64
	switch key {
	case "avg10":
		avg = &l.Avg10
	case "avg60":
		avg = &l.Avg60
	case "avg300":
		avg = &l.Avg300
	case "total":
		var err error
		if l.TotalMicros, err = strconv.ParseUint(val, 10, 64); err != nil {
			return fmt.Errorf("pressure %.40q is not a number", pair)
		}
		return nil
	default:
		return nil
	}
	f, err := strconv.ParseFloat(val, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Errorf("pressure %.40q is not a number", pair)
	}
	*avg = f
	return nil
}

// lines gives the lines of a file without their ends; empty ones are left out.
func lines(data []byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range strings.SplitSeq(string(data), "\n") {
			if line != "" && !yield(line) {
				return
			}
		}
	}
}
