package archtest

import (
	"go/ast"
	"path"
	"strings"
	"testing"
)

// Limits of what a reader takes in at once, in lines. Tables of test cases need more room.
const (
	maxFile     = 600
	maxTestFile = 900
	maxFunction = 80
)

// noNouns are package names that say nothing about what is inside, so that everything ends up there.
var noNouns = []string{"util", "utils", "common", "helper", "helpers", "lib", "misc", "shared", "base"}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	for dir, files := range packages(sources(t)) {
		documented, onlyTests := false, true
		for _, one := range files {
			documented = documented || one.file.Doc != nil && !one.test
			onlyTests = onlyTests && one.test
		}
		if !documented && !onlyTests {
			t.Errorf("package %s has no doc comment", dir)
		}
	}
}

func TestPackagesAreNouns(t *testing.T) {
	for dir := range packages(sources(t)) {
		for _, bad := range noNouns {
			if path.Base(dir) == bad {
				t.Errorf("package %s: the name %s does not tell what belongs there", dir, bad)
			}
		}
	}
}

func TestFilesAreShort(t *testing.T) {
	for _, one := range sources(t) {
		limit := maxFile
		if one.test {
			limit = maxTestFile
		}
		if !one.generated && one.lines > limit {
			t.Errorf("%s has %d lines, at most %d are allowed", one.path, one.lines, limit)
		}
	}
}

func TestFunctionsAreShort(t *testing.T) {
	for _, one := range sources(t) {
		if one.generated || one.test {
			continue
		}
		for _, declaration := range one.file.Decls {
			f, ok := declaration.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if lines := one.set.Position(f.End()).Line - one.set.Position(f.Pos()).Line; lines > maxFunction {
				t.Errorf("%s: %s has %d lines, at most %d are allowed", one.path, f.Name.Name, lines, maxFunction)
			}
		}
	}
}

// A pause hides a race or wastes time; wait for the event, or look again on a ticker under a deadline.
func TestNothingSleeps(t *testing.T) {
	for _, one := range sources(t) {
		ast.Inspect(one.file, func(node ast.Node) bool {
			selector, ok := node.(*ast.SelectorExpr)
			if !ok || selector.Sel.Name != "Sleep" {
				return true
			}
			if of, ok := selector.X.(*ast.Ident); ok && of.Name == "time" {
				t.Errorf("%s sleeps", one.set.Position(selector.Pos()))
			}
			return true
		})
	}
}

// Comments and strings must not promise what is to come: what is there works.
func TestNothingIsUnfinished(t *testing.T) {
	markers := []string{"TO" + "DO", "FIX" + "ME", "XX" + "X:"}
	for _, one := range sources(t) {
		if one.generated {
			continue
		}
		for _, group := range one.file.Comments {
			for _, marker := range markers {
				if strings.Contains(group.Text(), marker) {
					t.Errorf("%s: %s", one.set.Position(group.Pos()), marker)
				}
			}
		}
	}
}
