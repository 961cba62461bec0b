package main

import (
	"context"
	"debug/elf"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

//go:embed jobs.service
var jobsUnit []byte

// parts of the distribution's systemd that the machine gets. The programs' libraries come along with them.
var (
	systemdPrograms = []string{"lib/systemd/systemd", "bin/systemctl", "bin/dbus-daemon"}
	systemdFiles    = []string{
		"lib/systemd/system/sysinit.target", "lib/systemd/system/basic.target", "lib/systemd/system/sockets.target",
		"lib/systemd/system/shutdown.target", "lib/systemd/system/dbus.socket", "lib/systemd/system/dbus.service",
		"share/dbus-1/system.conf", "share/dbus-1/system.d/org.freedesktop.systemd1.conf",
	}
	// executor is of versions later than Debian 12's.
	executor = "lib/systemd/systemd-executor"
)

// unpackSystemd gets the distribution's systemd and D-Bus, and all they depend on, into dir, unless they are there
// already, and returns the tree. Nothing is installed.
func unpackSystemd(ctx context.Context, dir string) (string, error) {
	return unpackPackages(ctx, dir, "systemd", func() ([]string, error) {
		out, err := askArchive(ctx, "--recurse", "--important", "systemd", "dbus")
		if err != nil {
			return nil, err
		}
		var names []string
		for line := range strings.Lines(out) {
			name := strings.TrimSuffix(line, "\n")
			// A dependency is indented, and one that several packages fulfil is in angle brackets.
			for _, prefix := range []string{"systemd", "dbus", "lib"} {
				if strings.HasPrefix(name, prefix) {
					names = append(names, name)
					break
				}
			}
		}
		if len(names) == 0 {
			return nil, errors.New("the distribution has no package systemd")
		}
		return names, nil
	})
}

// addSystemd adds systemd from the tree, set up so that it runs the jobs as a service.
func (a *archive) addSystemd(tree string) error {
	files, err := index(tree)
	if err != nil {
		return err
	}
	libraries := map[string]string{}
	for _, name := range append(systemdPrograms, executor) {
		path := a.addPart(tree, name, 0o755)
		if path == "" && name == executor {
			continue
		}
		if path == "" {
			return fmt.Errorf("%s has no %s", tree, name)
		}
		if err := needed(path, files, libraries); err != nil {
			return err
		}
	}
	for name, path := range libraries {
		// The loader looks there without being told.
		a.addFile("lib/"+name, path)
	}
	a.addFile("lib64/ld-linux-x86-64.so.2", files["ld-linux-x86-64.so.2"])
	for _, name := range systemdFiles {
		if a.addPart(tree, name, 0o644) == "" {
			return fmt.Errorf("%s has no %s", tree, name)
		}
	}
	a.add("etc/systemd/system/jobs.service", jobsUnit, 0o644)
	a.add("etc/machine-id", []byte("6e6f64656167656e74206d616368696e\n"), 0o644)
	a.add("etc/passwd", []byte("root:x:0:0::/root:/bin/sh\nmessagebus:x:100:100::/:/bin/false\n"), 0o644)
	a.add("etc/group", []byte("root:x:0:\nmessagebus:x:100:\n"), 0o644)
	a.add("systemd", nil, 0o644)
	return nil
}

// addPart adds a file of the tree where it is there, below usr or not, and gives its path; empty when there is none.
func (a *archive) addPart(tree, name string, mode int) string {
	for _, place := range []string{name, "usr/" + name} {
		path := filepath.Join(tree, place)
		if !isFile(path) {
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			a.err = err
		}
		a.add(place, content, mode)
		return path
	}
	return ""
}

// index finds the files of a tree by their last names; a link is found by its own, where it stays within its folder.
func index(tree string) (map[string]string, error) {
	files := map[string]string{}
	return files, filepath.WalkDir(tree, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name := entry.Name()
		if entry.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			if err != nil || strings.Contains(target, "/") {
				return err
			}
			path = filepath.Join(filepath.Dir(path), target)
		}
		if files[name] == "" || !isFile(files[name]) {
			files[name] = path
		}
		return nil
	})
}

func isFile(path string) bool {
	stat, err := os.Lstat(path)
	return err == nil && stat.Mode().IsRegular()
}

// needed adds the libraries that a program or library asks for, and those that these ask for.
func needed(path string, files, libraries map[string]string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	defer f.Close()
	names, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	for _, name := range names {
		if libraries[name] != "" {
			continue
		}
		if files[name] == "" {
			return fmt.Errorf("%s needs %s, which no package has", path, name)
		}
		libraries[name] = files[name]
		if err := needed(files[name], files, libraries); err != nil {
			return err
		}
	}
	return nil
}
