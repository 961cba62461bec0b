package images

import (
	"runtime"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	e2e     = "registry.k8s.io/e2e-test-images/"
	staging = "gcr.io/k8s-staging-cri-tools/"
	hub     = "docker.io/library/"
)

// Names of the images that tests of this project use.
const (
	// Busybox has a shell and the usual small programs, and runs a shell.
	Busybox = e2e + "busybox:1.29-2"
	// Nginx serves a page on port 80.
	Nginx = e2e + "nginx:1.14-2"
	// Pause sleeps until it is told to end.
	Pause = "registry.k8s.io/pause:3.9"
)

func config(command ...string) ocispec.ImageConfig {
	return ocispec.ImageConfig{
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Cmd: command,
	}
}

func asUser(user string) ocispec.ImageConfig {
	c := config("sh")
	c.User = user
	return c
}

func nginxConfig(port string) ocispec.ImageConfig {
	c := config("nginx", "-g", "daemon off;")
	c.ExposedPorts = map[string]struct{}{port + "/tcp": {}}
	c.StopSignal = "SIGQUIT"
	return c
}

// catalogue lists every image with its references: those that critest v1.36.0 names in pkg/validate/consts.go, and the
// short names a person would type.
func catalogue() []image {
	httpd := config("httpd", "-D", "FOREGROUND", "-f", "/etc/httpd.conf")
	httpd.ExposedPorts = map[string]struct{}{"80/tcp": {}}
	return append(tutorial(), []image{
		{config: config("sh"), refs: []string{Busybox, hub + "busybox:latest"}},
		{layers: []string{"nginx"}, config: nginxConfig("80"), refs: []string{Nginx}},
		{layers: []string{"nginx", "hostnet"}, config: nginxConfig("12003"), refs: []string{staging + "hostnet-nginx-" + runtime.GOARCH + ":latest"}},
		{layers: []string{"httpd"}, config: httpd, refs: []string{e2e + "httpd:2.4.39-4", hub + "httpd:latest"}},
		{layers: []string{"nonewprivs"}, config: config("/nnp"), refs: []string{e2e + "nonewprivs:1.3"}},
		{layers: []string{"pause"}, config: config("/pause"), refs: []string{Pause, "k8s.gcr.io/pause:3.9"}},
		{text: "latest", config: config("sh"), refs: []string{staging + "test-image-latest:latest"}},
		{text: "tag", config: config("sh"), refs: []string{staging + "test-image-tag:test"}},
		{text: "all", config: config("sh"), refs: []string{staging + "test-image-tag:all"}},
		{text: "digest", config: config("sh"), refs: []string{staging + "test-image-digest:latest"}},
		{text: "1", config: config("sh"), refs: []string{staging + "test-image-1:latest"}},
		{text: "2", config: config("sh"), refs: []string{staging + "test-image-2:latest"}},
		{text: "3", config: config("sh"), refs: []string{staging + "test-image-3:latest"}},
		{text: "tags", config: config("sh"), refs: []string{staging + "test-image-tags:1", staging + "test-image-tags:2", staging + "test-image-tags:3"}},
		{text: "uid", config: asUser("1002"), refs: []string{staging + "test-image-user-uid:latest"}},
		{text: "username", config: asUser("www-data"), refs: []string{staging + "test-image-user-username:latest"}},
		{text: "uid-group", config: asUser("1003:1004"), refs: []string{staging + "test-image-user-uid-group:latest"}},
		{text: "username-group", config: asUser("www-data:www-data"), refs: []string{staging + "test-image-user-username-group:latest"}},
		{layers: []string{"groups"}, config: asUser("1000"), refs: []string{staging + "test-image-predefined-group:latest"}},
	}...)
}
