package imageconfig

import (
	"strconv"
	"strings"
)

// maxExpanded bounds what variables may make of one instruction.
const maxExpanded = 1 << 20

// pair is NAME=value.
type pair struct{ name, value string }

// pairs reads NAME=value..., or the old form NAME value.
func (ch *changer) pairs(instruction, text string) ([]pair, error) {
	first, rest, _ := strings.Cut(text, " ")
	if !strings.Contains(first, "=") {
		value, err := ch.expand(strings.TrimSpace(rest))
		if err == nil && strings.TrimSpace(rest) == "" {
			err = wrong("%s must have two arguments", instruction)
		}
		return []pair{{first, value}}, err
	}
	words, err := ch.words(text)
	if err != nil {
		return nil, err
	}
	var out []pair
	for _, w := range words {
		name, value, ok := strings.Cut(w, "=")
		if !ok {
			return nil, wrong("Syntax error - can't find = in %q. Must be of the form: name=value", w)
		}
		if name == "" {
			return nil, wrong("%s names can not be blank", instruction)
		}
		out = append(out, pair{name, value})
	}
	return out, nil
}

// words cuts text at blanks outside of quotes, and expands variables.
func (ch *changer) words(text string) ([]string, error) {
	r := &reader{text: text, lookup: ch.lookup}
	var out []string
	for {
		r.blanks()
		if r.at >= len(r.text) {
			return out, nil
		}
		word, err := r.word(true)
		if err != nil {
			return nil, err
		}
		out = append(out, word)
	}
}

// expand expands variables and takes quotes away, without cutting.
func (ch *changer) expand(text string) (string, error) {
	r := &reader{text: text, lookup: ch.lookup}
	return r.word(false)
}

// lookup finds a variable of the configuration.
func (ch *changer) lookup(name string) (string, bool) {
	for _, e := range ch.c.Env {
		if have, value, _ := strings.Cut(e, "="); have == name {
			return value, true
		}
	}
	return "", false
}

// reader goes through the text of an instruction.
type reader struct {
	text   string
	at     int
	lookup func(string) (string, bool)
	out    strings.Builder
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func (r *reader) blanks() {
	for r.at < len(r.text) && isBlank(r.text[r.at]) {
		r.at++
	}
}

// word reads to the end, or to a blank.
func (r *reader) word(cut bool) (string, error) {
	r.out.Reset()
	for r.at < len(r.text) {
		c := r.text[r.at]
		if cut && isBlank(c) {
			break
		}
		r.at++
		var err error
		switch c {
		case '\'':
			err = r.single()
		case '"':
			err = r.double()
		case '\\':
			r.escaped("")
		case '$':
			err = r.variable()
		default:
			r.out.WriteByte(c)
		}
		if err == nil && r.out.Len() > maxExpanded {
			err = wrong("an instruction of more than %d bytes", maxExpanded)
		}
		if err != nil {
			return "", err
		}
	}
	return r.out.String(), nil
}

// single reads to the closing quote, as it stands.
func (r *reader) single() error {
	end := strings.IndexByte(r.text[r.at:], '\'')
	if end < 0 {
		return wrong("unexpected end of statement while looking for matching single-quote")
	}
	r.out.WriteString(r.text[r.at : r.at+end])
	r.at += end + 1
	return nil
}

func (r *reader) double() error {
	for r.at < len(r.text) {
		c := r.text[r.at]
		r.at++
		switch c {
		case '"':
			return nil
		case '\\':
			r.escaped(`"$\`)
		case '$':
			if err := r.variable(); err != nil {
				return err
			}
		default:
			r.out.WriteByte(c)
		}
	}
	return wrong("unexpected end of statement while looking for matching double-quote")
}

// escaped reads what a backslash was before. It stands for itself where
// only some characters are escaped and this is none of them.
func (r *reader) escaped(only string) {
	if r.at >= len(r.text) {
		r.out.WriteByte('\\')
		return
	}
	c := r.text[r.at]
	r.at++
	if only != "" && !strings.ContainsRune(only, rune(c)) {
		r.out.WriteByte('\\')
	}
	r.out.WriteByte(c)
}

func isName(c byte, first bool) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || !first && c >= '0' && c <= '9'
}

func (r *reader) name() string {
	begin := r.at
	for r.at < len(r.text) && isName(r.text[r.at], r.at == begin) {
		r.at++
	}
	return r.text[begin:r.at]
}

// variable reads $NAME, ${NAME}, ${NAME:-word} and ${NAME:+word}.
func (r *reader) variable() error {
	if r.at >= len(r.text) || r.text[r.at] != '{' {
		name := r.name()
		if name == "" {
			r.out.WriteByte('$')
			return nil
		}
		value, _ := r.lookup(name)
		r.out.WriteString(value)
		return nil
	}
	r.at++
	name := r.name()
	end := strings.IndexByte(r.text[r.at:], '}')
	if name == "" || end < 0 {
		return wrong("syntax error: missing '}' or a bad variable name")
	}
	modifier := r.text[r.at : r.at+end]
	r.at += end + 1
	value, set := r.lookup(name)
	set = set && value != ""
	switch word := strings.TrimPrefix(modifier, ":"); {
	case modifier == "":
		r.out.WriteString(value)
	case strings.HasPrefix(word, "-") && !set:
		r.out.WriteString(word[1:])
	case strings.HasPrefix(word, "-"):
		r.out.WriteString(value)
	case strings.HasPrefix(word, "+") && set:
		r.out.WriteString(word[1:])
	case strings.HasPrefix(word, "+"):
	default:
		return wrong("unsupported modifier (%s) in substitution", modifier)
	}
	return nil
}

// portRange reads PORT[-PORT][/PROTOCOL].
func portRange(text string) ([]string, error) {
	ports, protocol, ok := strings.Cut(text, "/")
	if !ok {
		protocol = "tcp"
	}
	protocol = strings.ToLower(protocol)
	if protocol != "tcp" && protocol != "udp" && protocol != "sctp" {
		return nil, wrong("invalid containerPort: %s", text)
	}
	low, high, isRange := strings.Cut(ports, "-")
	if !isRange {
		high = low
	}
	from, err1 := strconv.ParseUint(low, 10, 16)
	to, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || err2 != nil || from > to || from == 0 {
		return nil, wrong("invalid containerPort: %s", text)
	}
	var out []string
	for p := from; p <= to; p++ {
		out = append(out, strconv.FormatUint(p, 10)+"/"+protocol)
	}
	return out, nil
}
