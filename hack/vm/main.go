// Command vm runs tests on a kernel with cgroup v2 alone: a virtual machine in software emulation, with Debian's kernel,
// busybox, the programs of bin and test binaries in its first file system. With -systemd the machine's first process is
// Debian's systemd, which owns the cgroups, and other tests run. What it prints is the machine's serial console; its exit
// code is 0 when the machine came to its end, whatever the tests said, and 3 when the distribution has no kernel for it.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

//go:embed init.sh
var initScript []byte

// machine is what runs inside one.
type machine struct {
	// systemd says who the first process is: Debian's, or else busybox.
	systemd bool
	// jobs are the shell scripts that are run, in the order of their names.
	jobs map[string]string
	// tests are the packages whose test binaries go into the machine, by file name.
	tests map[string]string
}

// plain is the machine without systemd. The tests of cgroups that are of v1 alone skip themselves there.
var plain = machine{
	jobs: map[string]string{
		"1-demo":    "exec $REPOSITORY/bin/nodeagent demo",
		"2-cgroups": "mkdir -p /cgroups && cd /cgroups && exec /tests/cgroups.test -test.v -test.timeout 60s",
		// What the kernel of the machine that the other tests run on may lack.
		"3-network":  "mkdir -p /network && cd /network && exec /tests/network.test -test.v -test.run VLAN -test.timeout 60s",
		"4-nodectl":  "cd $REPOSITORY/test/vm && exec /tests/vm.test -test.v -test.run Nodectl -test.timeout 240s",
		"5-oomwatch": "mkdir -p /oomwatch && cd /oomwatch && exec /tests/oomwatch.test -test.v -test.run TestWatch -test.timeout 60s",
	},
	tests: map[string]string{"cgroups.test": "./cgroups", "network.test": "./network", "oomwatch.test": "./supervisor/server/oomwatch", "vm.test": "./test/vm"},
}

// withSystemd is the machine where systemd owns the cgroups.
var withSystemd = machine{
	systemd: true,
	jobs: map[string]string{
		"1-cgroups": "mkdir -p /cgroups && cd /cgroups && exec /tests/cgroups.test -test.v -test.run Systemd -test.timeout 120s",
		"2-pods":    "cd $REPOSITORY/test/vm && exec /tests/vm.test -test.v -test.run '^TestSystemd$' -test.timeout 300s",
	},
	tests: map[string]string{"cgroups.test": "./cgroups", "vm.test": "./test/vm"},
}

// plugins are the CNI plugins that tests compare with.
var plugins = []string{"bridge", "host-local"}

func main() {
	limit := flag.Duration("timeout", 6*time.Minute, "how long the machine may run")
	own := flag.String("job", "", "a shell script to run in place of the tests")
	systemd := flag.Bool("systemd", false, "have systemd as the machine's first process")
	flag.Parse()
	m := plain
	if *systemd {
		m = withSystemd
	}
	if err := m.run(*limit, *own); err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		if errors.Is(err, errNoKernel) {
			os.Exit(3)
		}
		os.Exit(1)
	}
}

func (m machine) run(limit time.Duration, own string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	repository, err := os.Getwd()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "nodeagent-vm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cache := filepath.Join(repository, ".cache", "vm")
	k, err := unpackKernel(ctx, cache)
	if err != nil {
		return fmt.Errorf("get the kernel: %w", err)
	}
	if k.busybox, err = unpackBusybox(ctx, cache); err != nil {
		return fmt.Errorf("get busybox: %w", err)
	}
	if own != "" {
		script, err := os.ReadFile(own)
		if err != nil {
			return err
		}
		m.jobs = map[string]string{filepath.Base(own): string(script)}
	}
	if m.systemd {
		if k.systemd, err = unpackSystemd(ctx, cache); err != nil {
			return fmt.Errorf("get systemd: %w", err)
		}
	}
	initramfs := filepath.Join(dir, "initramfs")
	if err := m.writeInitramfs(ctx, initramfs, dir, repository, k); err != nil {
		return fmt.Errorf("make the first file system: %w", err)
	}
	return boot(ctx, k.image, initramfs)
}

// writeInitramfs builds the test binaries and writes the archive.
func (m machine) writeInitramfs(ctx context.Context, target, dir, repository string, k *kernel) error {
	f, err := os.Create(target)
	if err != nil {
		return err
	}
	defer f.Close()
	a := newArchive(f)
	a.add("init", initScript, 0o755)
	a.addFile("bin/busybox", k.busybox)
	if m.systemd {
		if err := a.addSystemd(k.systemd); err != nil {
			return err
		}
	}
	for _, name := range []string{"nodeagent", "nodesupervisor", "nodectl"} {
		a.addFile(filepath.Join(repository, "bin", name), filepath.Join(repository, "bin", name))
	}
	for _, name := range plugins {
		path := filepath.Join(repository, ".cache", "bin", "cni", name)
		a.addFile(path, path)
	}
	for name, pkg := range m.tests {
		cmd := exec.CommandContext(ctx, "go", "test", "-c", "-o", filepath.Join(dir, name), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build the tests of %s: %w: %s", pkg, err, out)
		}
		a.addFile("tests/"+name, filepath.Join(dir, name))
	}
	scripts, err := filepath.Glob(filepath.Join(repository, "test", "vm", "testdata", "*"))
	if err != nil {
		return err
	}
	for _, script := range scripts {
		a.addFile(script, script)
	}
	for name, script := range m.jobs {
		a.add("jobs/"+name, []byte(strings.ReplaceAll(script, "$REPOSITORY", repository)+"\n"), 0o755)
	}
	var order strings.Builder
	for _, module := range k.modules {
		a.addFile("modules/"+filepath.Base(module), module)
		order.WriteString(filepath.Base(module) + "\n")
	}
	a.add("modules/order", []byte(order.String()), 0o644)
	return errors.Join(a.close(), f.Close())
}

// boot runs the machine until it turns itself off.
func boot(ctx context.Context, image, initramfs string) error {
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "1024", "-smp", "2", "-nographic",
		"-no-reboot", "-nic", "none", "-kernel", image, "-initrd", initramfs,
		"-append", "console=ttyS0 quiet panic=-1 psi=1 cgroup_no_v1=all")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run the machine: %w", errors.Join(err, ctx.Err()))
	}
	return nil
}
