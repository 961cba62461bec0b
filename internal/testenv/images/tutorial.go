package images

import (
	"context"
)

// tutorial lists the images that docker's tutorials use, each as one of its kind: a web server with a shell, a system
// with a shell, a web application whose pages lie in a second folder, and the Distribution registry.
func tutorial() []image {
	webapp := nginxConfig("8080")
	webapp.WorkingDir = "/usr/local/tomcat"
	registry := config("docker-registry", "serve", "/etc/docker/registry/config.yml")
	registry.Env = append(registry.Env, "OTEL_TRACES_EXPORTER=none")
	registry.ExposedPorts = map[string]struct{}{"5000/tcp": {}}
	registry.Volumes = map[string]struct{}{"/var/lib/registry": {}}
	shell := config("/bin/bash")
	return []image{
		{layers: []string{"nginx", "bash"}, config: nginxConfig("80"), refs: []string{hub + "nginx:latest"}},
		{layers: []string{"bash"}, text: "15.10", config: shell, refs: []string{hub + "ubuntu:15.10"}},
		{layers: []string{"bash"}, text: "16.04", config: shell, refs: []string{hub + "ubuntu:16.04"}},
		{layers: []string{"nginx", "bash", "webapp"}, config: webapp, refs: []string{hub + "tomcat:latest"}},
		{layers: []string{"registry"}, config: registry, refs: []string{hub + "registry:2"}},
	}
}

func bashFiles(ctx context.Context, pool *debPool, t tree) error {
	if err := pool.add(ctx, "bash"); err != nil {
		return err
	}
	return t.program(ctx, pool, "bash", "usr/bin/bash", "usr/bin/bash")
}

// webappFiles is a server of an empty folder, with the pages in another.
func webappFiles(_ context.Context, _ *debPool, t tree) error {
	t.dir("usr/local/tomcat/webapps", 0o755)
	t.text("usr/local/tomcat/webapps.dist/index.html", page)
	t.text("etc/nginx/nginx.conf", `user www-data;
worker_processes 1;
pid /var/run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 64; }
http {
	access_log /dev/stdout;
	server {
		listen 8080;
		root /usr/local/tomcat/webapps;
	}
}
`)
	return nil
}

func registryFiles(ctx context.Context, pool *debPool, t tree) error {
	if err := pool.add(ctx, "docker-registry"); err != nil {
		return err
	}
	if err := t.program(ctx, pool, "docker-registry", "usr/bin/docker-registry", "usr/bin/docker-registry"); err != nil {
		return err
	}
	t.dir("var/lib/registry", 0o755)
	t.text("etc/docker/registry/config.yml", `version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: /var/lib/registry}, delete: {enabled: true}}
http: {addr: ":5000"}
`)
	return nil
}
