package guard_test

import (
	"go/ast"
	"go/doc"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// pkg is one folder of Go files, its tests apart.
type pkg struct {
	name   string
	docs   []string
	tests  []*ast.File
	exists bool // it has files that are not tests
}

func packages(t *testing.T) map[string]*pkg {
	t.Helper()
	all := map[string]*pkg{}
	for _, s := range sources(t) {
		p := all[s.pkg()]
		if p == nil {
			p = &pkg{}
			all[s.pkg()] = p
		}
		if s.test {
			p.tests = append(p.tests, s.File)
			continue
		}
		p.exists, p.name = true, s.Name.Name
		if s.Doc != nil {
			p.docs = append(p.docs, s.Doc.Text())
		}
	}
	return all
}

func TestEveryPackageIsDocumented(t *testing.T) {
	all := packages(t)
	for _, folder := range slices.Sorted(maps.Keys(all)) {
		p := all[folder]
		if !p.exists {
			continue
		}
		start := "Package " + p.name + " "
		if p.name == "main" { // as go doc has it: "Gofmt formats …"
			base := path.Base(folder)
			start = strings.ToUpper(base[:1]) + base[1:] + " "
		}
		switch {
		case len(p.docs) != 1:
			t.Errorf("%s: %d files have a package comment; one should", folder, len(p.docs))
		case !strings.HasPrefix(p.docs[0], start):
			t.Errorf("%s: the package comment does not begin with %q", folder, start)
		}
	}
}

// testsOnly are packages that only tests use, and why an example
// cannot show it.
var testsOnly = map[string]string{
	"groundtruth/guests": "everything takes a testing.TB",
	"groundtruth":        "exports nothing: it is its tests",
	"linux/linuxtest":    "everything takes a testing.T",
	"lab/labtest":        "everything takes a testing.TB, which an example has not; the package comment shows its use",
}

func TestEveryPackageHasAnExample(t *testing.T) {
	all := packages(t)
	for _, folder := range slices.Sorted(maps.Keys(all)) {
		p := all[folder]
		if !p.exists || p.name == "main" || testsOnly[folder] != "" {
			continue
		}
		if !slices.ContainsFunc(doc.Examples(p.tests...), p.runs) {
			t.Errorf("%s: no example that runs: a func Example… with an Output comment, or one that a test passes to linuxtest.Examples", folder)
		}
	}
	for folder := range testsOnly {
		if all[folder] == nil || !all[folder].exists {
			t.Errorf("%s is exempt and does not exist", folder)
		}
	}
}

// TestGuestExamplesRun finds examples that look at a guest and that no test runs.
func TestGuestExamplesRun(t *testing.T) {
	for folder, p := range packages(t) {
		if !slices.ContainsFunc(p.tests, importsLinuxtest) {
			continue
		}
		for _, e := range doc.Examples(p.tests...) {
			if !p.runs(e) {
				t.Errorf("%s: Example%s has no Output comment and is not passed to linuxtest.Examples", folder, e.Name)
			}
		}
	}
}

// runs reports whether go test runs e: it has output to compare, or a test passes it to
// linuxtest.Examples.
func (p *pkg) runs(e *doc.Example) bool {
	return e.Output != "" || e.EmptyOutput || slices.ContainsFunc(p.tests, func(f *ast.File) bool {
		return importsLinuxtest(f) && mentions(f, "Example"+e.Name)
	})
}

func importsLinuxtest(f *ast.File) bool {
	return slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"`+module+`/linux/linuxtest"` })
}

// mentions reports whether f uses the function name, beside declaring it.
func mentions(f *ast.File, name string) (found bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		if d, ok := n.(*ast.FuncDecl); ok && d.Name.Name == name {
			return false
		}
		id, ok := n.(*ast.Ident)
		found = found || ok && id.Name == name
		return !found
	})
	return found
}
