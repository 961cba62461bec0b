package images

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// tree is the files of one layer by their path in the image, without a leading slash.
type tree map[string]node

// node is one file of a tree. A directory has neither content, source nor link.
type node struct {
	mode    int64
	content []byte
	source  string // a file on this machine whose bytes are taken
	link    string // target of a symbolic link
	// hardlink is the path, in this layer, of the file that this is another name of.
	hardlink string
}

// merged places a path as a system with a merged /usr has it.
func merged(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for _, top := range []string{"bin/", "sbin/", "lib/", "lib64/"} {
		if strings.HasPrefix(name, top) {
			return "usr/" + name
		}
	}
	return name
}

func (t tree) dir(name string, mode int64) { t[merged(name)] = node{mode: mode} }
func (t tree) text(name, content string) {
	t[merged(name)] = node{mode: 0o644, content: []byte(content)}
}
func (t tree) file(name, source string, mode int64) {
	t[merged(name)] = node{mode: mode, source: source}
}

// program adds an executable or library of an unpacked package with its interpreter and all libraries it needs.
func (t tree) program(ctx context.Context, pool *debPool, pkg, file, as string) error {
	source, ok := pool.find(pkg, file)
	if !ok {
		return fmt.Errorf("find %s in package %s: %w", file, pkg, os.ErrNotExist)
	}
	t.file(as, source, 0o755)
	return t.needs(ctx, pool, pkg, source)
}

// needs adds what the dynamic section and the interpreter header of an ELF file name.
func (t tree) needs(ctx context.Context, pool *debPool, pkg, source string) error {
	binary, err := elf.Open(source)
	if err != nil {
		return fmt.Errorf("read ELF file %s: %w", source, err)
	}
	defer binary.Close()
	sonames, err := binary.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read libraries of %s: %w", source, err)
	}
	interpreter := interpreterOf(binary)
	if interpreter != "" {
		sonames = append(sonames, path.Base(interpreter))
	}
	for _, soname := range sonames {
		if err := t.needsLibrary(ctx, pool, pkg, soname, interpreter); err != nil {
			return err
		}
	}
	return nil
}

func (t tree) needsLibrary(ctx context.Context, pool *debPool, pkg, soname, interpreter string) error {
	owner, lib, err := pool.library(ctx, pkg, soname)
	if err != nil {
		return err
	}
	within, err := filepath.Rel(pool.root(owner), lib)
	if err != nil {
		return err
	}
	name := merged(within)
	if interpreter != "" && soname == path.Base(interpreter) {
		// The kernel takes the interpreter from its own path, the loader finds the others in its default folders.
		name = merged(interpreter)
	}
	if _, ok := t[name]; ok {
		return nil
	}
	target, err := filepath.EvalSymlinks(lib)
	if err != nil {
		return fmt.Errorf("resolve library %s: %w", lib, err)
	}
	t.file(name, target, 0o755)
	return t.needs(ctx, pool, owner, target)
}

func interpreterOf(binary *elf.File) string {
	for _, header := range binary.Progs {
		if header.Type != elf.PT_INTERP {
			continue
		}
		text, err := io.ReadAll(io.LimitReader(header.Open(), 4096))
		if err == nil {
			return strings.TrimRight(string(text), "\x00")
		}
	}
	return ""
}

// write writes the tree as a gzipped tar archive, parents before children, with every time at the epoch.
func (t tree) write(w io.Writer) error {
	compressed := gzip.NewWriter(w)
	archive := tar.NewWriter(compressed)
	t.addParents()
	names := make([]string, 0, len(t))
	for name := range t {
		names = append(names, name)
	}
	sort.Slice(names, func(i, j int) bool {
		if a, b := t[names[i]].hardlink != "", t[names[j]].hardlink != ""; a != b {
			return b
		}
		return names[i] < names[j]
	})
	for _, name := range names {
		if err := t[name].write(archive, name); err != nil {
			return fmt.Errorf("write layer entry %s: %w", name, err)
		}
	}
	return errors.Join(archive.Close(), compressed.Close())
}

func (t tree) addParents() {
	for name := range t {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := t[dir]; !ok {
				t[dir] = node{mode: 0o755}
			}
		}
	}
}

func (n node) write(archive *tar.Writer, name string) error {
	header := &tar.Header{Name: name, Mode: n.mode, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	switch {
	case n.link != "":
		header.Typeflag, header.Linkname = tar.TypeSymlink, n.link
		return archive.WriteHeader(header)
	case n.hardlink != "":
		header.Typeflag, header.Linkname = tar.TypeLink, n.hardlink
		return archive.WriteHeader(header)
	case n.source != "":
		f, err := os.Open(n.source)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		header.Typeflag, header.Size = tar.TypeReg, info.Size()
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err = io.Copy(archive, f)
		return err
	case n.content != nil:
		header.Typeflag, header.Size = tar.TypeReg, int64(len(n.content))
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err := archive.Write(n.content)
		return err
	default:
		header.Typeflag, header.Name = tar.TypeDir, name+"/"
		return archive.WriteHeader(header)
	}
}
