package imageconfig

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/containerd/errdefs"
)

// maxChange bounds one instruction, in bytes.
const maxChange = 64 << 10

// instructions are those that change a configuration.
var instructions = map[string]func(*changer, string) error{
	"CMD": (*changer).cmd, "ENTRYPOINT": (*changer).entrypoint, "ENV": (*changer).env, "EXPOSE": (*changer).expose,
	"HEALTHCHECK": (*changer).healthcheck, "LABEL": (*changer).label, "ONBUILD": (*changer).onBuild,
	"STOPSIGNAL": (*changer).stopSignal, "USER": (*changer).user, "VOLUME": (*changer).volume, "WORKDIR": (*changer).workdir,
}

// changer applies one list of changes.
type changer struct {
	c *Config
	// cmdSet says that the command was set by a change, so that a new entry
	// point does not drop it.
	cmdSet bool
}

// Apply carries out Dockerfile instructions, in order.
func (c *Config) Apply(changes []string) error {
	by := &changer{c: c}
	for _, change := range changes {
		if err := by.apply(change); err != nil {
			return err
		}
	}
	return nil
}

func (ch *changer) apply(change string) error {
	if len(change) > maxChange {
		return wrong("a change of more than %d bytes", maxChange)
	}
	name, rest, _ := strings.Cut(strings.TrimSpace(change), " ")
	if tab, after, ok := strings.Cut(name, "\t"); ok {
		name, rest = tab, after+" "+rest
	}
	do, ok := instructions[strings.ToUpper(name)]
	if !ok {
		return wrong("%s is not a valid change command", strings.ToLower(name))
	}
	rest = strings.TrimSpace(strings.ReplaceAll(rest, "\\\n", " "))
	if rest == "" {
		return wrong("%s requires at least one argument", strings.ToUpper(name))
	}
	return do(ch, rest)
}

func wrong(format string, args ...any) error {
	return &ChangeError{fmt.Sprintf(format, args...)}
}

// ChangeError is an instruction that is none, or none of those that are known.
type ChangeError struct {
	// Text is what is wrong, for a person.
	Text string
}

// Error returns the text.
func (e *ChangeError) Error() string { return e.Text }

// Unwrap returns ErrInvalidArgument.
func (e *ChangeError) Unwrap() error { return errdefs.ErrInvalidArgument }

// command is a command in JSON, or one for the shell.
func (ch *changer) command(text string) []string {
	if list, ok := jsonList(text); ok {
		return list
	}
	shell := ch.c.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(append([]string{}, shell...), text)
}

// jsonList reads a list of strings; anything else is not one.
func jsonList(text string) ([]string, bool) {
	if !strings.HasPrefix(text, "[") {
		return nil, false
	}
	var list []string
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, false
	}
	return list, true
}

func (ch *changer) cmd(text string) error {
	ch.c.Cmd, ch.cmdSet = ch.command(text), true
	return nil
}

func (ch *changer) entrypoint(text string) error {
	if ch.c.Entrypoint = ch.command(text); len(ch.c.Entrypoint) == 0 {
		ch.c.Entrypoint = nil
	}
	if !ch.cmdSet {
		ch.c.Cmd = nil
	}
	return nil
}

func (ch *changer) env(text string) error {
	pairs, err := ch.pairs("ENV", text)
	for _, p := range pairs {
		ch.c.Env = SetEnv(ch.c.Env, p.name, p.value)
	}
	return err
}

// SetEnv sets one variable in a list of NAME=value, in its place.
func SetEnv(env []string, name, value string) []string {
	for i, e := range env {
		if have, _, _ := strings.Cut(e, "="); have == name {
			env = append([]string{}, env...)
			env[i] = name + "=" + value
			return env
		}
	}
	return append(env[:len(env):len(env)], name+"="+value)
}

func (ch *changer) label(text string) error {
	pairs, err := ch.pairs("LABEL", text)
	labels := map[string]string{}
	for name, value := range ch.c.Labels {
		labels[name] = value
	}
	for _, p := range pairs {
		labels[p.name] = p.value
	}
	ch.c.Labels = labels
	return err
}

func (ch *changer) expose(text string) error {
	words, err := ch.words(text)
	if err != nil {
		return err
	}
	ports := map[string]struct{}{}
	for p := range ch.c.ExposedPorts {
		ports[p] = struct{}{}
	}
	for _, w := range words {
		list, err := portRange(w)
		if err != nil {
			return err
		}
		for _, p := range list {
			ports[p] = struct{}{}
		}
	}
	ch.c.ExposedPorts = ports
	return nil
}

func (ch *changer) volume(text string) error {
	list, ok := jsonList(text)
	if !ok {
		var err error
		if list, err = ch.words(text); err != nil {
			return err
		}
	}
	volumes := map[string]struct{}{}
	for v := range ch.c.Volumes {
		volumes[v] = struct{}{}
	}
	for _, v := range list {
		if v = strings.TrimSpace(v); v == "" {
			return wrong("VOLUME specified can not be an empty string")
		}
		volumes[v] = struct{}{}
	}
	ch.c.Volumes = volumes
	return nil
}

func (ch *changer) user(text string) (err error) {
	ch.c.User, err = ch.one("USER", text)
	return err
}

func (ch *changer) workdir(text string) error {
	// Not cut into words: a path may have spaces.
	dir, err := ch.expand(text)
	if err != nil {
		return err
	}
	if !path.IsAbs(dir) {
		dir = path.Join("/", ch.c.WorkingDir, dir)
	}
	ch.c.WorkingDir = path.Clean(dir)
	return nil
}

func (ch *changer) stopSignal(text string) (err error) {
	ch.c.StopSignal, err = ch.one("STOPSIGNAL", text)
	return err
}

func (ch *changer) onBuild(text string) error {
	switch name, _, _ := strings.Cut(text, " "); strings.ToUpper(name) {
	case "ONBUILD":
		return wrong("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
	case "FROM", "MAINTAINER":
		return wrong("%s isn't allowed as an ONBUILD trigger", strings.ToUpper(name))
	}
	ch.c.OnBuild = append(ch.c.OnBuild[:len(ch.c.OnBuild):len(ch.c.OnBuild)], text)
	return nil
}

// one expands the only word an instruction has.
func (ch *changer) one(name, text string) (string, error) {
	words, err := ch.words(text)
	if err == nil && len(words) != 1 {
		err = wrong("%s requires exactly one argument", name)
	}
	if err != nil {
		return "", err
	}
	return words[0], nil
}
