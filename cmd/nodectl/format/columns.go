package format

import (
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"
)

// column matches a template that is one field and nothing else.
var column = regexp.MustCompile(`^\{\{ ?\.([A-Z][A-Za-z0-9]*) ?\}\}$`)

// columns are the fields of a template that has nothing but fields apart by
// tabs; ok is false for any other. A template looks each field of each row up
// by its name, which is most of the time that a long list takes.
func columns(source string) (fields []string, ok bool) {
	for part := range strings.SplitSeq(source, "\t") {
		found := column.FindStringSubmatch(part)
		if found == nil {
			return nil, false
		}
		fields = append(fields, found[1])
	}
	return fields, true
}

// writeColumns writes rows of one type; ok is false when that is no type
// whose methods are all these fields, and nothing was written then.
func (l List) writeColumns(out io.Writer, fields []string) (ok bool, err error) {
	if len(l.Rows) == 0 {
		return true, nil
	}
	kind := reflect.TypeOf(l.Rows[0])
	methods := make([]reflect.Value, len(fields))
	for i, name := range fields {
		m, found := kind.MethodByName(name)
		if !found || m.Type.NumIn() != 1 || m.Type.NumOut() != 1 || m.Type.Out(0).Kind() != reflect.String {
			return false, nil
		}
		methods[i] = m.Func
	}
	for _, row := range l.Rows {
		if reflect.TypeOf(row) != kind {
			return false, nil
		}
	}
	for _, row := range l.Rows {
		v := []reflect.Value{reflect.ValueOf(row)}
		for i, m := range methods {
			if i > 0 {
				fmt.Fprint(out, "\t")
			}
			fmt.Fprint(out, m.Call(v)[0].String())
		}
		if _, err := fmt.Fprintln(out); err != nil {
			return true, err
		}
	}
	return true, nil
}
