package format

import (
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// shortID is how many digits of an ID lists show.
const shortID = 12

// ID is an ID as lists show it: without its algorithm, shortened unless whole.
func ID(id string, whole bool) string {
	if whole {
		return id
	}
	_, hex, ok := strings.Cut(id, ":")
	if !ok {
		hex = id
	}
	return hex[:min(len(hex), shortID)]
}

// Ellipsis shortens text to n characters, the last one being "…".
func Ellipsis(text string, n int) string {
	runes := []rune(text)
	if len(runes) <= n {
		return text
	}
	return string(runes[:n-1]) + "…"
}

// Ago says how long ago t was.
func Ago(t time.Time) string { return Since(t) + " ago" }

// Since says how much time has passed since t.
func Since(t time.Time) string { return units.HumanDuration(time.Now().UTC().Sub(t)) }

// Pairs are labels or their like, NAME=VALUE, in order and apart by sep.
func Pairs(all map[string]string, sep string) string {
	list := make([]string, 0, len(all))
	for name, value := range all {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return strings.Join(list, sep)
}

// Time is a time as lists show it whole.
func Time(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 -0700 MST") }

// Total says how much n bytes are, with four digits, as docker writes sums.
func Total(n int64) string { return units.HumanSize(float64(n)) }

// Size says how much n bytes are, with three digits.
func Size(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }
