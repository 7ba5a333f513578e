// Package guard_test guards the repository itself: that imports go down the
// stair, that packages are documented, that nothing unsafe, oversized or tied to
// one machine gets in. It needs neither QEMU nor network.
package guard_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/outsight-vmi/outsight"

// files lists the files of the repository, relative to its root: those that git
// has or would add.
func files(t *testing.T) []string {
	t.Helper()
	t.Chdir("..") // tests run in the folder of their package
	// go test keeps a result until a file or directory changes that the test opened itself.
	// What git reads is invisible to it, so each directory is opened here too.
	walked := walk(t)
	out, err := exec.Command("git", "ls-files", "-co", "--exclude-standard", "-z").Output()
	if err != nil {
		return walked // an unpacked release
	}
	var names []string
	for name := range strings.SplitSeq(strings.Trim(string(out), "\x00"), "\x00") {
		if _, err := os.Lstat(name); err == nil { // else deleted, and not yet committed
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// walk lists every file but those of git and of builds.
func walk(t *testing.T) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(".", func(name string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".git" || name == "bin":
			if d.IsDir() {
				return filepath.SkipDir
			}
		case !d.IsDir():
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// source is one parsed Go file of the main module.
type source struct {
	name string // path of the file
	test bool
	*ast.File
}

// pkg is the folder of the file, which is the package's path in the module.
func (s source) pkg() string { return path.Dir(s.name) }

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	fset := token.NewFileSet()
	for _, name := range files(t) {
		if !strings.HasSuffix(name, ".go") || strings.HasPrefix(name, "tools/") || strings.Contains(name, "testdata/") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, source{name, strings.HasSuffix(name, "_test.go"), f})
	}
	if len(all) < 10 {
		t.Fatalf("only %d Go files found: the guards guard nothing", len(all))
	}
	return all
}

func imports(s source) []string {
	var paths []string
	for _, i := range s.Imports {
		paths = append(paths, strings.Trim(i.Path.Value, `"`))
	}
	return paths
}

// functions are the names of the top-level functions of a file.
func functions(s source) []string {
	var names []string
	for _, d := range s.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
			names = append(names, f.Name.Name)
		}
	}
	return names
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func isBinary(b []byte) bool { return bytes.IndexByte(b[:min(len(b), 8000)], 0) >= 0 }
