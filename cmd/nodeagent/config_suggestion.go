package main

import (
	"fmt"
	"reflect"
	"strings"
)

// maxSuggestionDistance is how many letters a key may be off and still be
// taken for another.
const maxSuggestionDistance = 3

// suggestion is the known key nearest to one that is not, whose parts are those
// of its tables, as a half sentence, or "".
func suggestion(parts []string) string {
	best, bestDistance := "", maxSuggestionDistance+1
	t, key := reflect.TypeFor[Config](), parts[0]
	if len(parts) == 3 && key == "handlers" {
		t, key = reflect.TypeFor[Handler](), parts[2]
	}
	for i := range t.NumField() {
		known, _, _ := strings.Cut(t.Field(i).Tag.Get("toml"), ",")
		if d := editDistance(key, known); d < bestDistance {
			best, bestDistance = known, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// editDistance is Levenshtein's, kept in one row.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost = 1 + min(diagonal, row[j], row[j-1])
			}
			diagonal, row[j] = row[j], cost
		}
	}
	return row[len(b)]
}
