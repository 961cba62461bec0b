package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"
)

// aptTimeout bounds one call of apt-get, index refresh included.
const aptTimeout = 5 * time.Minute

// debPool holds unpacked packages, one directory each, below dir. It is not safe for concurrent use.
type debPool struct {
	dir     string
	refresh sync.Once
	// depends lists, for each unpacked package, the names of the packages it depends on directly.
	depends map[string][]string
}

func newDebPool(dir string) *debPool {
	return &debPool{dir: dir, depends: map[string][]string{}}
}

// root returns the directory that holds the files of an unpacked package.
func (p *debPool) root(name string) string { return filepath.Join(p.dir, name, "root") }

// add downloads and unpacks a package, once.
func (p *debPool) add(ctx context.Context, name string) error {
	if _, ok := p.depends[name]; ok {
		return nil
	}
	deb, err := p.fetch(ctx, name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.root(name), 0o755); err != nil {
		return err
	}
	if _, err := run(ctx, "", "dpkg-deb", "-x", deb, p.root(name)); err != nil {
		return fmt.Errorf("unpack package %s: %w", name, err)
	}
	out, err := run(ctx, "", "dpkg-deb", "-f", deb, "Pre-Depends", "Depends")
	if err != nil {
		return fmt.Errorf("read control file of package %s: %w", name, err)
	}
	p.depends[name] = parseDepends(string(out))
	return nil
}

// fetch returns the path of the package's .deb file, downloading it when it is not there yet.
func (p *debPool) fetch(ctx context.Context, name string) (string, error) {
	dir := filepath.Join(p.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "*.deb")); len(found) == 1 {
		return found[0], nil
	}
	download := func() error {
		_, err := run(ctx, dir, "apt-get", "-o", "APT::Sandbox::User=root", "-q", "download", name)
		return err
	}
	err := download()
	if err != nil {
		p.refresh.Do(func() { _, err = run(ctx, dir, "apt-get", "-q", "update") })
		err = download()
	}
	if err != nil {
		return "", fmt.Errorf("download package %s: %w", name, err)
	}
	found, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	if len(found) != 1 {
		return "", fmt.Errorf("download package %s: %d files arrived", name, len(found))
	}
	return found[0], nil
}

// addOwner unpacks the first of the named packages that holds the file, and returns its name. Distributions differ in
// which of several packages a program is in.
func (p *debPool) addOwner(ctx context.Context, file string, names ...string) (string, error) {
	var failed []error
	for _, name := range names {
		if err := p.add(ctx, name); err != nil {
			failed = append(failed, err)
			continue
		}
		if _, ok := p.find(name, file); ok {
			return name, nil
		}
	}
	return "", fmt.Errorf("find %s in packages %s: %w", file, strings.Join(names, ", "), errors.Join(append(failed, fs.ErrNotExist)...))
}

// find returns the path of an image file inside an unpacked package, with and without the merged /usr.
func (p *debPool) find(name, file string) (string, bool) {
	for _, candidate := range []string{file, strings.TrimPrefix(file, "usr/")} {
		path := filepath.Join(p.root(name), candidate)
		if _, err := os.Lstat(path); err == nil {
			return path, true
		}
	}
	return "", false
}

// library finds a shared library by its soname among the packages that the package depends on, unpacking those that
// sound alike first. It returns the owner and the path of the library.
func (p *debPool) library(ctx context.Context, pkg, soname string) (owner, path string, err error) {
	candidates := append([]string{pkg}, likeliestFirst(p.depends[pkg], soname)...)
	for _, name := range candidates {
		if err := p.add(ctx, name); err != nil {
			return "", "", err
		}
		for _, pattern := range []string{"usr/lib/*/", "lib/*/", "usr/lib/", "lib/"} {
			found, _ := filepath.Glob(filepath.Join(p.root(name), pattern+soname))
			if len(found) > 0 {
				return name, found[0], nil
			}
		}
	}
	return "", "", fmt.Errorf("find library %s for package %s: %w", soname, pkg, fs.ErrNotExist)
}

// likeliestFirst keeps the library packages and sorts them by how much of the soname their name shares.
func likeliestFirst(names []string, soname string) []string {
	var libs []string
	for _, name := range names {
		if strings.HasPrefix(name, "lib") || strings.HasPrefix(name, "zlib") {
			libs = append(libs, name)
		}
	}
	shared := func(name string) int {
		n := 0
		for n < len(name) && n < len(soname) && name[n] == soname[n] {
			n++
		}
		return n
	}
	sort.SliceStable(libs, func(i, j int) bool { return shared(libs[i]) > shared(libs[j]) })
	return libs
}

// parseDepends reads the names out of the relation fields of a control file; of alternatives it takes the first.
func parseDepends(text string) []string {
	var names []string
	for _, line := range strings.Split(text, "\n") {
		for _, field := range []string{"Pre-Depends:", "Depends:"} {
			line = strings.TrimPrefix(line, field)
		}
		for _, relation := range strings.Split(line, ",") {
			name := strings.TrimSpace(relation)
			if i := strings.IndexAny(name, " |(:"); i >= 0 {
				name = name[:i]
			}
			if name != "" {
				names = append(names, name)
			}
		}
	}
	return names
}

// run runs a program to its end and returns its standard output; the error carries what it said on standard error.
func run(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, aptTimeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}
