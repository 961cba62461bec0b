// Package format writes lists as docker's commands do: a table, a Go
// template, a table of a template's, or JSON.
package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
)

// Header gives each field's column header.
type Header map[string]string

// Label is the header of a column of one label.
func (h Header) Label(name string) string {
	return name[strings.LastIndex(name, ".")+1:]
}

// List is what is written. Rows are values whose methods without arguments
// are the fields.
type List struct {
	// Format is what the person asked for; empty or "table" take Default.
	Format string
	// Default is a template of columns, apart by tabs.
	Default string
	Header  Header
	Rows    []any
}

// Write writes the list.
func (l List) Write(out io.Writer) error {
	source, table := l.Format, false
	switch {
	case source == "json":
		return l.writeJSON(out)
	case source == "" || source == "table":
		source, table = l.Default, true
	case strings.HasPrefix(source, "table"):
		source, table = strings.TrimPrefix(source, "table"), true
	}
	source = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(strings.Trim(source, " "))
	tmpl, err := Parse(source)
	if err != nil {
		return err
	}
	var rows bytes.Buffer
	if err := l.writeRows(&rows, source, tmpl); err != nil {
		return err
	}
	if !table {
		_, err := rows.WriteTo(out)
		return err
	}
	return l.writeTable(out, tmpl, &rows)
}

// writeRows writes each row by the template.
func (l List) writeRows(out io.Writer, source string, tmpl *template.Template) error {
	if fields, ok := columns(source); ok {
		if done, err := l.writeColumns(out, fields); done || err != nil {
			return err
		}
	}
	for _, row := range l.Rows {
		if err := execute(tmpl, out, row); err != nil {
			return err
		}
	}
	return nil
}

// writeTable writes the header and the rows in columns.
func (l List) writeTable(out io.Writer, tmpl *template.Template, rows io.Reader) error {
	w := tabwriter.NewWriter(out, 10, 1, 3, ' ', 0)
	if err := execute(tmpl.Funcs(headerFunctions), w, l.Header); err != nil {
		return err
	}
	if _, err := io.Copy(w, rows); err != nil {
		return err
	}
	return w.Flush()
}

// writeJSON writes an object a line.
func (l List) writeJSON(out io.Writer) error {
	for _, row := range l.Rows {
		if _, err := fmt.Fprintln(out, encode(Fields(row))); err != nil {
			return err
		}
	}
	return nil
}

// Value writes one value by a template, as indented JSON when it is empty, or
// as JSON on one line when it is "json". A template may use the names of the
// Go fields or those of the JSON.
func Value(out io.Writer, source string, value any) error {
	switch source {
	case "":
		enc := json.NewEncoder(out)
		enc.SetIndent("", "    ")
		enc.SetEscapeHTML(false)
		return enc.Encode(value)
	case "json":
		_, err := fmt.Fprintln(out, encode(value))
		return err
	}
	tmpl, err := Parse(source)
	if err != nil {
		return err
	}
	failure := execute(tmpl, out, value)
	if failure == nil {
		return nil
	}
	raw, err := decoded(value)
	if err != nil || execute(tmpl.Option("missingkey=error"), out, raw) != nil {
		return failure
	}
	return nil
}

// decoded is a value as its JSON reads.
func decoded(value any) (raw any, err error) {
	dec := json.NewDecoder(strings.NewReader(encode(value)))
	dec.UseNumber()
	err = dec.Decode(&raw)
	return raw, err
}

// Parse reads a template with docker's functions.
func Parse(source string) (*template.Template, error) {
	tmpl, err := template.New("").Funcs(functions).Parse(source)
	if err != nil {
		return nil, fmt.Errorf("template parsing error: %w", err)
	}
	return tmpl, nil
}

// execute writes one value and a newline.
func execute(tmpl *template.Template, out io.Writer, value any) error {
	var b bytes.Buffer
	if err := tmpl.Execute(&b, value); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	b.WriteByte('\n')
	_, err := b.WriteTo(out)
	return err
}
