package images

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// trees names the layers and what fills each of them.
var trees = map[string]func(context.Context, *debPool, tree) error{
	"busybox":    busyboxFiles,
	"nginx":      nginxFiles,
	"hostnet":    hostnetFiles,
	"httpd":      httpdFiles,
	"nonewprivs": nonewprivsFiles,
	"pause":      pauseFiles,
	"groups":     groupFiles,
	"bash":       bashFiles,
	"webapp":     webappFiles,
	"registry":   registryFiles,
}

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
	group  = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"
	page   = "<!DOCTYPE html><title>It works</title><p>It works.</p>\n"
)

// busyboxFiles is the base of every image: the distribution's dynamic busybox, which runs programs from PATH before
// applets of its own, and the two programs it lacks.
func busyboxFiles(ctx context.Context, pool *debPool, t tree) error {
	for _, dir := range []string{"dev", "etc", "proc", "root", "run", "sys", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "var/log", "var/www/html", "home"} {
		t.dir(dir, 0o755)
	}
	t.dir("tmp", 0o1777)
	for _, top := range []string{"bin", "sbin", "lib", "lib64"} {
		t[top] = node{mode: 0o777, link: "usr/" + top}
	}
	t["var/run"] = node{mode: 0o777, link: "../run"}
	t.text("etc/passwd", passwd)
	t.text("etc/group", group)
	for _, one := range []struct{ pkg, file string }{
		{"busybox", "usr/bin/busybox"}, {"procps", "usr/bin/pgrep"}, {"util-linux", "usr/bin/ipcs"},
	} {
		if err := pool.add(ctx, one.pkg); err != nil {
			return err
		}
		if err := t.program(ctx, pool, one.pkg, one.file, one.file); err != nil {
			return err
		}
	}
	// An applet needs a name in PATH. The list is the program's own; it runs on the machine that builds.
	binary, _ := pool.find("busybox", "usr/bin/busybox")
	applets, err := run(ctx, "", binary, "--list")
	if err != nil {
		return fmt.Errorf("list applets: %w", err)
	}
	for _, applet := range strings.Fields(string(applets)) {
		if name := "usr/bin/" + applet; t[name].source == "" {
			// A hard link, so that a mount over one name covers no other.
			t[name] = node{mode: 0o755, hardlink: "usr/bin/busybox"}
		}
	}
	return nil
}

func nginxFiles(ctx context.Context, pool *debPool, t tree) error {
	pkg, err := pool.addOwner(ctx, "usr/sbin/nginx", "nginx", "nginx-light", "nginx-core")
	if err != nil {
		return err
	}
	if err := t.program(ctx, pool, pkg, "usr/sbin/nginx", "usr/sbin/nginx"); err != nil {
		return err
	}
	for _, dir := range []string{"var/log/nginx", "var/lib/nginx"} {
		t.dir(dir, 0o755)
	}
	t.text("usr/share/nginx/html/index.html", page)
	t.text("etc/nginx/nginx.conf", nginxConf("80"))
	return nil
}

func hostnetFiles(_ context.Context, _ *debPool, t tree) error {
	t.text("etc/nginx/nginx.conf", nginxConf("12003"))
	return nil
}

func nginxConf(port string) string {
	return `user www-data;
worker_processes 1;
pid /var/run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 64; }
http {
	access_log /dev/stdout;
	server {
		listen ` + port + `;
		root /usr/share/nginx/html;
	}
}
`
}

func httpdFiles(ctx context.Context, pool *debPool, t tree) error {
	if err := pool.add(ctx, "apache2-bin"); err != nil {
		return err
	}
	// Under the name httpd the program writes that name to its log, which critest looks for.
	if err := t.program(ctx, pool, "apache2-bin", "usr/sbin/apache2", "usr/sbin/httpd"); err != nil {
		return err
	}
	for _, module := range []string{"mpm_event", "authz_core", "dir"} {
		file := "usr/lib/apache2/modules/mod_" + module + ".so"
		if err := t.program(ctx, pool, "apache2-bin", file, file); err != nil {
			return err
		}
	}
	t.text("var/www/html/index.html", page)
	t.text("etc/httpd.conf", `ServerName localhost
ServerRoot /usr/lib/apache2
DefaultRuntimeDir /run
PidFile /run/httpd.pid
Listen 80
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_core_module modules/mod_authz_core.so
LoadModule dir_module modules/mod_dir.so
User www-data
Group www-data
ErrorLog /proc/self/fd/2
LogLevel notice
DirectoryIndex index.html
DocumentRoot /var/www/html
`)
	return nil
}

// nonewprivsFiles installs the program of that name setuid root.
func nonewprivsFiles(ctx context.Context, pool *debPool, t tree) error {
	return compile(ctx, pool, t, "nonewprivs", "nnp", 0o4755)
}

func pauseFiles(ctx context.Context, pool *debPool, t tree) error {
	return compile(ctx, pool, t, "pause", "pause", 0o755)
}

// compile builds a small static program from this package's own source.
func compile(ctx context.Context, pool *debPool, t tree, program, as string, mode int64) error {
	source, err := recipe.ReadFile("programs/" + program + ".c")
	if err != nil {
		return err
	}
	dir := filepath.Join(pool.dir, "programs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, program+".c"), source, 0o644); err != nil {
		return err
	}
	if _, err := run(ctx, dir, "gcc", "-Os", "-static", "-s", "-Wl,--build-id=none", "-o", program, program+".c"); err != nil {
		return fmt.Errorf("compile %s: %w", program, err)
	}
	t.file(as, filepath.Join(dir, program), mode)
	return nil
}

func groupFiles(_ context.Context, _ *debPool, t tree) error {
	t.text("etc/passwd", passwd+"default-user:x:1000:1000::/home/default-user:/bin/sh\n")
	t.text("etc/group", group+"default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n")
	return nil
}
