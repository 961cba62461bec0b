package main

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// wanted are the modules that pods need: their root file systems and the embedded network.
var wanted = []string{"overlay", "veth", "bridge", "br_netfilter", "nf_tables", "nft_chain_nat", "nft_nat", "nft_masq", "nft_ct",
	"nft_redir", "nft_fib_inet", "nft_reject_inet", "nft_numgen", "nft_hash", "nft_limit", "nf_conntrack_netlink"}

// kernel is an unpacked kernel package, with the one program the machine needs beside.
type kernel struct {
	image   string   // path of the bootable image
	modules []string // paths of the wanted modules and those below them, in the order of loading
	busybox string   // path of the program that the machine's own scripts run with
	systemd string   // tree that systemd is in, where the machine has it
}

// errNoKernel says that this distribution has no kernel for virtual machines under Debian's name.
var errNoKernel = errors.New("the distribution has no package linux-image-cloud-amd64")

// unpackKernel gets the distribution's kernel into dir, unless one is there already. Nothing is installed.
func unpackKernel(ctx context.Context, dir string) (*kernel, error) {
	whole, err := unpackPackages(ctx, dir, "kernel", func() ([]string, error) { return kernelPackage(ctx) })
	if err != nil {
		return nil, err
	}
	images, err := filepath.Glob(filepath.Join(whole, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return nil, fmt.Errorf("%d kernel images below %s", len(images), whole)
	}
	k := &kernel{image: images[0]}
	k.modules, err = loadOrder(filepath.Join(whole, "lib", "modules"))
	return k, err
}

// unpackBusybox gets the static busybox, which cannot be installed beside the other one, and returns its path.
func unpackBusybox(ctx context.Context, dir string) (string, error) {
	whole, err := unpackPackages(ctx, dir, "busybox", func() ([]string, error) { return []string{"busybox-static"}, nil })
	return filepath.Join(whole, "bin", "busybox"), err
}

// kernelPackage is the package of the current version: the one with the lasting name is empty and depends on it.
func kernelPackage(ctx context.Context) ([]string, error) {
	out, err := askArchive(ctx, "--important", "linux-image-cloud-amd64")
	if err != nil {
		return nil, err
	}
	_, after, found := strings.Cut(out, "Depends: ")
	if !found {
		return nil, errNoKernel
	}
	name, _, _ := strings.Cut(after, "\n")
	return []string{strings.TrimSpace(name)}, nil
}

// askArchive is what apt-cache says that packages depend on; empty when there is none of the name.
func askArchive(ctx context.Context, args ...string) (string, error) {
	ask := func() string {
		out, _ := exec.CommandContext(ctx, "apt-cache", append([]string{"depends"}, args...)...).Output()
		return string(out)
	}
	if out := ask(); out != "" {
		return out, nil
	}
	// There may be no lists of packages yet.
	if out, err := exec.CommandContext(ctx, "apt-get", "-q", "update").CombinedOutput(); err != nil {
		return "", fmt.Errorf("apt-get update: %w: %s", err, out)
	}
	return ask(), nil
}

// unpackPackages unpacks packages beside their place and moves them there once they are whole. It returns the place, and
// asks for the packages' names only when they are not there yet.
func unpackPackages(ctx context.Context, dir, as string, names func() ([]string, error)) (string, error) {
	whole := filepath.Join(dir, as)
	if _, err := os.Stat(whole); err == nil {
		return whole, nil
	}
	wanted, err := names()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	part, err := os.MkdirTemp(dir, "part-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(part)
	if err := download(ctx, part, wanted); err != nil {
		return "", err
	}
	packages, err := filepath.Glob(filepath.Join(part, "*.deb"))
	if err != nil || len(packages) != len(wanted) {
		return "", fmt.Errorf("apt-get download %s brought %d packages", strings.Join(wanted, " "), len(packages))
	}
	tree := filepath.Join(part, "tree")
	for _, one := range packages {
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", one, tree).CombinedOutput(); err != nil {
			return "", fmt.Errorf("dpkg-deb: %w: %s", err, out)
		}
	}
	return whole, os.Rename(tree, whole)
}

// download gets packages into dir. The lists may name versions that the archive has no more.
func download(ctx context.Context, dir string, names []string) error {
	get := func() ([]byte, error) {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-o", "APT::Sandbox::User=root", "-q", "download"}, names...)...)
		cmd.Dir = dir
		return cmd.CombinedOutput()
	}
	_, err := get()
	if err == nil {
		return nil
	}
	if out, err := exec.CommandContext(ctx, "apt-get", "-q", "update").CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get update: %w: %s", err, out)
	}
	if out, err := get(); err != nil {
		return fmt.Errorf("apt-get download %s: %w: %s", strings.Join(names, " "), err, out)
	}
	return nil
}

// loadOrder returns the paths of the wanted modules, each after those it depends on.
func loadOrder(dir string) ([]string, error) {
	paths := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if name, is := strings.CutSuffix(filepath.Base(path), ".ko"); is {
			paths[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var order []string
	seen := map[string]bool{}
	var load func(name string) error
	load = func(name string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		path := paths[name]
		if path == "" {
			return fmt.Errorf("the kernel has no module %s", name)
		}
		below, err := dependencies(path)
		if err != nil {
			return err
		}
		for _, one := range below {
			if err := load(strings.ReplaceAll(one, "-", "_")); err != nil {
				return err
			}
		}
		order = append(order, path)
		return nil
	}
	for _, name := range wanted {
		if err := load(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// dependencies reads what a module says of itself: strings such as "depends=a,b", each ended by a zero byte.
func dependencies(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("%s is no module", path)
	}
	text, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	for _, one := range bytes.Split(text, []byte{0}) {
		if list, is := strings.CutPrefix(string(one), "depends="); is && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}
