package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"
)

// flagOf is the flag that overrides a key.
func flagOf(key string) string {
	switch key {
	case "certs_dirs":
		return "certs-dir"
	case "cni_bin_dirs":
		return "cni-bin-dir"
	case "cdi_spec_dirs":
		return "cdi-spec-dir"
	}
	return strings.ReplaceAll(key, "_", "-")
}

// origin says where the value of a key comes from. inFile are the lines of the
// keys that the file has.
func (f *flagValues) origin(flags *pflag.FlagSet, inFile map[string]int, key string) string {
	if name := flagOf(key); flags.Lookup(name) != nil && flags.Changed(name) {
		return "flag --" + name
	}
	if line, ok := inFile[key]; ok {
		return fmt.Sprintf("%s line %d", f.config, line)
	}
	if key == "listen" && flags.Changed("state") {
		return "flag --state"
	}
	return "default"
}

// keyLine is a line of a configuration that sets a key of its top level;
// tableLine begins a table below a key.
var (
	keyLine   = regexp.MustCompile(`^\s*["']?([A-Za-z0-9_-]+)["']?\s*=`)
	tableLine = regexp.MustCompile(`^\s*\[\[?\s*["']?([A-Za-z0-9_-]+)`)
)

// linesOf finds the lines of the keys in a configuration that was read
// already; a table counts where it begins.
func linesOf(raw []byte) map[string]int {
	var known map[string]any
	if toml.Unmarshal(raw, &known) != nil {
		return nil
	}
	lines := map[string]int{}
	top := true
	number := 0
	for line := range bytes.Lines(raw) {
		number++
		found := tableLine.FindSubmatch(line)
		if found != nil {
			top = false
		} else if found = keyLine.FindSubmatch(line); !top {
			continue
		}
		if found == nil {
			continue
		}
		key := string(found[1])
		if _, ok := known[key]; ok && lines[key] == 0 {
			lines[key] = number
		}
	}
	return lines
}

// withOrigins writes a configuration with the origin of each key beside it.
func (f *flagValues) withOrigins(flags *pflag.FlagSet, cfg Config) ([]byte, error) {
	raw, err := os.ReadFile(f.config)
	inFile := map[string]int{}
	if err == nil {
		inFile = linesOf(raw)
	}
	text, err := toml.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	top := true
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, "\n")
		found := tableLine.FindSubmatch(line)
		if found != nil {
			top = false
		} else if found = keyLine.FindSubmatch(line); !top {
			found = nil
		}
		switch {
		case bytes.HasPrefix(line, []byte("#")):
		case found != nil:
			fmt.Fprintf(&out, "%s  # %s\n", line, f.origin(flags, inFile, string(found[1])))
		default:
			fmt.Fprintf(&out, "%s\n", line)
		}
	}
	return out.Bytes(), nil
}
