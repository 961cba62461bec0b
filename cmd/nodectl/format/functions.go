package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"text/template"
	"unicode"
)

// functions are those docker's templates have.
var functions = template.FuncMap{
	"json":     encode,
	"split":    strings.Split,
	"join":     join,
	"title":    title,
	"lower":    strings.ToLower,
	"upper":    strings.ToUpper,
	"pad":      pad,
	"truncate": truncate,
}

// headerFunctions leave headers as they are.
var headerFunctions = template.FuncMap{
	"json":     func(v any) any { return v },
	"split":    func(v any, _ string) any { return v },
	"join":     func(v any, _ string) any { return v },
	"title":    func(v any) any { return v },
	"lower":    func(v any) any { return v },
	"upper":    func(v any) any { return v },
	"pad":      func(v any, _, _ int) any { return v },
	"truncate": func(v any, _ int) any { return v },
}

// encode is a value in JSON on one line; of a row its fields.
func encode(v any) string {
	if isRow(v) {
		v = Fields(v)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(b.String())
}

// join joins the elements of a list or the values of a map.
func join(list any, separator string) (string, error) {
	var parts []string
	switch v := reflect.ValueOf(list); v.Kind() {
	case reflect.Invalid:
	case reflect.Array, reflect.Slice:
		for i := range v.Len() {
			parts = append(parts, fmt.Sprint(v.Index(i).Interface()))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			parts = append(parts, fmt.Sprint(v.MapIndex(key).Interface()))
		}
		slices.Sort(parts)
	default:
		return "", fmt.Errorf("expected slice, got %T", list)
	}
	return strings.Join(parts, separator), nil
}

// title begins each word with a capital.
func title(s string) string {
	before := ' '
	return strings.Map(func(r rune) rune {
		defer func() { before = r }()
		if unicode.IsLetter(before) || unicode.IsDigit(before) || before == '_' || before == '\'' {
			return r
		}
		return unicode.ToTitle(r)
	}, s)
}

func pad(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
}

func truncate(s string, n int) string {
	if len(s) < n {
		return s
	}
	return s[:n]
}

// isRow says whether a value has nothing but methods to show.
func isRow(v any) bool {
	t := reflect.TypeOf(v)
	if t == nil || t.Kind() != reflect.Struct || t.NumMethod() == 0 {
		return false
	}
	if _, ok := v.(json.Marshaler); ok {
		return false
	}
	for i := range t.NumField() {
		if t.Field(i).IsExported() {
			return false
		}
	}
	return true
}

// Fields are what the methods of a row return, by their names.
func Fields(row any) map[string]any {
	fields := map[string]any{}
	v := reflect.ValueOf(row)
	for i := range v.NumMethod() {
		if m := v.Method(i); m.Type().NumIn() == 0 && m.Type().NumOut() == 1 {
			fields[v.Type().Method(i).Name] = m.Call(nil)[0].Interface()
		}
	}
	return fields
}
