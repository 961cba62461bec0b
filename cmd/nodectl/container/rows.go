package container

import nodev1 "github.com/nodeagent/nodeagent/api/node/v1"

// Header are the headers of Rows.
var Header = psHeader

// Rows are containers as ps shows them, for other commands' lists.
func Rows(all []*nodev1.Container) []any {
	rows := make([]any, 0, len(all))
	for _, c := range all {
		rows = append(rows, psRow{c: c})
	}
	return rows
}
