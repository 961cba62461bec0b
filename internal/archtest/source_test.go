package archtest

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// module is the path that imports of this project begin with.
const module = "github.com/nodeagent/nodeagent/"

// source is one parsed Go file.
type source struct {
	path      string // relative to the root of the tree
	lines     int
	test      bool
	generated bool
	file      *ast.File
	set       *token.FileSet
}

// dir is the package's folder, "." for the root.
func (s source) dir() string { return path.Dir(s.path) }

// sources parses every Go file of this module, those of nested modules and of hidden folders left out.
func sources(t *testing.T) []source {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Dir(filepath.Dir(filepath.Dir(file)))
	var found []source
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			_, nested := os.Stat(filepath.Join(name, "go.mod"))
			if name != root && (nested == nil || strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		one, err := parse(root, name)
		found = append(found, one)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatalf("no Go files below %s", root)
	}
	return found
}

func parse(root, name string) (source, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return source{}, err
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, text, parser.ParseComments)
	if err != nil {
		return source{}, err
	}
	relative, err := filepath.Rel(root, name)
	return source{
		path:      filepath.ToSlash(relative),
		lines:     bytes.Count(text, []byte("\n")),
		test:      strings.HasSuffix(name, "_test.go"),
		generated: ast.IsGenerated(file),
		file:      file,
		set:       set,
	}, err
}

// packages groups files by folder.
func packages(found []source) map[string][]source {
	grouped := map[string][]source{}
	for _, one := range found {
		grouped[one.dir()] = append(grouped[one.dir()], one)
	}
	return grouped
}

// imports lists what a file imports.
func (s source) imports() []string {
	var paths []string
	for _, spec := range s.file.Imports {
		paths = append(paths, strings.Trim(spec.Path.Value, `"`))
	}
	slices.Sort(paths)
	return paths
}
