package container

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/nodeagent/nodeagent/cmd/nodectl/command"
)

// maxEnvFile bounds an --env-file, in bytes.
const maxEnvFile = 16 << 20

// environment joins the variables of files and flags. One without a value
// takes nodectl's own; where that has none, one of a file is left out, and one of
// a flag stays without a value.
func environment(files, flags []string) ([]string, error) {
	var out []string
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		lines, err := envLines(f)
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("invalid env file (%s): %w", name, err)
		}
		out = append(out, lines...)
	}
	for _, env := range flags {
		name, _, ok := strings.Cut(env, "=")
		if name == "" {
			return nil, &command.InvalidValue{Flag: "-e, --env", Value: env, Err: fmt.Errorf("invalid environment variable: %s", env)}
		}
		if ok {
			out = append(out, env)
		} else if value, found := os.LookupEnv(name); found {
			out = append(out, name+"="+value)
		} else {
			out = append(out, name)
		}
	}
	return out, nil
}

// fileLines reads a file's lines but for empty ones and comments.
func fileLines(r io.Reader) ([]string, error) {
	var out []string
	scanner := bufio.NewScanner(io.LimitReader(r, maxEnvFile))
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := strings.TrimLeftFunc(strings.TrimPrefix(scanner.Text(), "\ufeff"), unicode.IsSpace)
		if line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out, scanner.Err()
}

// envLines reads an environment file as docker does: values as they are,
// without quotes or expansion.
func envLines(r io.Reader) ([]string, error) {
	lines, err := fileLines(r)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, line := range lines {
		name, value, ok := strings.Cut(line, "=")
		if name == "" {
			return nil, fmt.Errorf("no variable name on line '%s'", line)
		}
		if strings.ContainsFunc(name, unicode.IsSpace) {
			return nil, fmt.Errorf("variable '%s' contains whitespaces", name)
		}
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				continue
			}
		}
		out = append(out, name+"="+value)
	}
	return out, nil
}
