package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultPath is the PATH of an image that sets none.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// process sets the command, its environment, folder and terminal.
func (b *builder) process() error {
	p := b.spec.Process
	p.Terminal = b.cfg.GetTty()
	p.NoNewPrivileges = b.sec.GetNoNewPrivs()
	var err error
	if p.Args, err = b.args(); err != nil {
		return err
	}
	if p.Env, err = b.env(); err != nil {
		return err
	}
	p.Cwd, err = b.cwd()
	return err
}

// args joins the configuration's command and the image's, as CRI says: a
// command replaces the image's entrypoint and its arguments, arguments alone
// only the image's arguments.
func (b *builder) args() ([]string, error) {
	command, args := b.cfg.GetCommand(), b.cfg.GetArgs()
	if len(command) == 0 && b.in.Image != nil {
		if len(args) == 0 {
			args = b.in.Image.Config.Cmd
		}
		// [""] is how an image takes back the entrypoint of its base.
		if e := b.in.Image.Config.Entrypoint; len(e) != 1 || e[0] != "" {
			command = e
		}
	}
	all := slices.Concat(command, args)
	if len(all) == 0 {
		return nil, invalid("command", "neither the configuration nor the image says what to run")
	}
	for i, arg := range all {
		switch {
		case !strings.ContainsRune(arg, 0):
		case i < len(command):
			return nil, invalid(fmt.Sprintf("command[%d]", i), "contains a NUL byte")
		default:
			return nil, invalid(fmt.Sprintf("args[%d]", i-len(command)), "contains a NUL byte")
		}
	}
	return all, nil
}

// env joins defaults, the image's variables and the configuration's; later
// ones win. All strings are new ones or immutable, and so is the slice: two
// containers of one image never share it (CVE-2021-21334).
func (b *builder) env() ([]string, error) {
	var e environment
	e.set(defaultPath)
	hostname := b.in.Hostname
	if hostname == "" {
		hostname = b.in.Pod.GetHostname()
	}
	if strings.ContainsRune(hostname, 0) {
		return nil, invalid("hostname", "contains a NUL byte")
	}
	if hostname != "" {
		e.set("HOSTNAME=" + hostname)
	}
	if b.cfg.GetTty() {
		e.set("TERM=xterm")
	}
	if b.in.Image != nil {
		for i, entry := range b.in.Image.Config.Env {
			if err := checkEnv(entry); err != nil {
				return nil, invalid(fmt.Sprintf("image.config.Env[%d]", i), "%v", err)
			}
			e.set(entry)
		}
	}
	for i, kv := range b.cfg.GetEnvs() {
		if kv.GetKey() == "" || strings.ContainsAny(kv.GetKey(), "=\x00") {
			return nil, invalid(fmt.Sprintf("envs[%d].key", i), "%.300q is not a variable's name", kv.GetKey())
		}
		if slices.Contains(kv.GetValue(), 0) {
			return nil, invalid(fmt.Sprintf("envs[%d].value", i), "%s contains a NUL byte", kv.GetKey())
		}
		e.set(kv.GetKey() + "=" + string(kv.GetValue()))
	}
	return e.entries, nil
}

// environment is a list of "NAME=value" with each name once.
type environment struct {
	entries []string
	at      map[string]int
}

func (e *environment) set(entry string) {
	name, _, _ := strings.Cut(entry, "=")
	if i, ok := e.at[name]; ok {
		e.entries[i] = entry
		return
	}
	if e.at == nil {
		e.at = make(map[string]int)
	}
	e.at[name] = len(e.entries)
	e.entries = append(e.entries, entry)
}

// unset takes a variable away; its entry is empty then.
func (e *environment) unset(name string) {
	if i, ok := e.at[name]; ok {
		e.entries[i] = ""
		delete(e.at, name)
	}
}

func (e *environment) has(name string) bool {
	_, ok := e.at[name]
	return ok
}

// checkEnv refuses what could not be put into a process's environment.
func checkEnv(entry string) error {
	name, _, ok := strings.Cut(entry, "=")
	switch {
	case !ok || name == "":
		return fmt.Errorf("%.300q is not NAME=value", entry)
	case strings.ContainsRune(entry, 0):
		return fmt.Errorf("%s contains a NUL byte", name)
	}
	return nil
}

func (b *builder) cwd() (string, error) {
	field, dir := "working_dir", b.cfg.GetWorkingDir()
	if dir == "" && b.in.Image != nil {
		field, dir = "image.config.WorkingDir", b.in.Image.Config.WorkingDir
	}
	if dir == "" {
		return "/", nil
	}
	return dir, checkCwd(field, dir)
}

// checkCwd refuses a working folder that is relative, or that names a
// descriptor: one that leaked would lead out of the container
// (CVE-2024-21626).
func checkCwd(field, dir string) error {
	if !ValidPath(dir) {
		return invalid(field, "%.300q is not an absolute path", dir)
	}
	parts := strings.Split(strings.Trim(path.Clean(dir), "/"), "/")
	if len(parts) < 3 || parts[0] != "proc" {
		return nil
	}
	// /proc/PID/fd/N, /proc/self/task/TID/fd/N and their like.
	for _, part := range parts[2:] {
		if part == "fd" || part == "map_files" || part == "cwd" || part == "root" {
			return invalid(field, "%.300q leads through a descriptor", dir)
		}
	}
	return nil
}

// Exec gives the process to run in a container whose specification is base;
// base is not changed and shares no memory with the result. Its inheritable
// and ambient capabilities are those of the container, normally none
// (CVE-2022-29162).
func Exec(base *specs.Spec, opts ExecOptions) (*specs.Process, error) {
	if base == nil || base.Process == nil {
		return nil, invalid("container_id", "the container has no process")
	}
	if len(opts.Args) == 0 || opts.Args[0] == "" {
		return nil, invalid("cmd", "is empty")
	}
	for i, arg := range opts.Args {
		if strings.ContainsRune(arg, 0) {
			return nil, invalid("cmd", "argument %d contains a NUL byte", i)
		}
	}
	p := copyProcess(base.Process)
	p.Args = slices.Clone(opts.Args)
	if opts.Cwd != "" {
		if err := checkCwd("cwd", opts.Cwd); err != nil {
			return nil, err
		}
		p.Cwd = opts.Cwd
	}
	if opts.User != nil {
		p.User = specs.User{
			UID: opts.User.UID, GID: opts.User.GID,
			AdditionalGids: dedupe(append([]uint32{opts.User.GID}, opts.User.AdditionalGids...)),
		}
	}
	p.Terminal, p.ConsoleSize = opts.Terminal, nil
	if opts.Terminal && opts.Height > 0 && opts.Width > 0 {
		p.ConsoleSize = &specs.Box{Height: uint(opts.Height), Width: uint(opts.Width)}
	}
	if opts.Privileged {
		all := allCapabilities(opts.Capabilities)
		p.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: slices.Clone(all), Permitted: slices.Clone(all)}
		p.NoNewPrivileges = false
	}
	return p, execEnv(p, opts)
}

func execEnv(p *specs.Process, opts ExecOptions) error {
	var e environment
	for _, entry := range p.Env {
		e.set(entry)
	}
	if opts.Terminal && !e.has("TERM") {
		e.set("TERM=xterm")
	}
	for i, entry := range opts.Env {
		if entry != "" && !strings.ContainsAny(entry, "=\x00") {
			e.unset(entry)
			continue
		}
		if err := checkEnv(entry); err != nil {
			return invalid(fmt.Sprintf("env[%d]", i), "%v", err)
		}
		e.set(entry)
	}
	p.Env = slices.DeleteFunc(e.entries, func(entry string) bool { return entry == "" })
	return nil
}

// copyProcess copies deeply what Build may have set.
func copyProcess(from *specs.Process) *specs.Process {
	p := *from
	p.Args, p.Env = slices.Clone(from.Args), slices.Clone(from.Env)
	p.User.AdditionalGids = slices.Clone(from.User.AdditionalGids)
	p.Rlimits = slices.Clone(from.Rlimits)
	if from.User.Umask != nil {
		p.User.Umask = pointer(*from.User.Umask)
	}
	if from.OOMScoreAdj != nil {
		p.OOMScoreAdj = pointer(*from.OOMScoreAdj)
	}
	if c := from.Capabilities; c != nil {
		p.Capabilities = &specs.LinuxCapabilities{
			Bounding: slices.Clone(c.Bounding), Effective: slices.Clone(c.Effective),
			Permitted: slices.Clone(c.Permitted), Inheritable: slices.Clone(c.Inheritable),
			Ambient: slices.Clone(c.Ambient),
		}
	}
	return &p
}

func pointer[T any](v T) *T { return &v }
