package syscall

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Everything that the tables name has to exist: a mistake panics.
func TestTables(t *testing.T) {
	for _, abi := range []ABI{ABI64, ABI32} {
		calls, described := 0, 0
		var without []string
		for nr, c := range Table(abi) {
			if c == nil {
				continue
			}
			calls++
			if c.Number != nr || c.Name == "" || c.ABI != abi || len(c.Args) > 6 {
				t.Errorf("%v %d: %+v", abi, nr, c)
			}
			if len(c.Args) == 6 && c.Args[0].Name == "arg0" {
				without = append(without, c.Name)
				continue
			}
			described++
			for v, w := range c.variants {
				if len(w.args) > len(c.Args) {
					t.Errorf("%s: %d arguments for %#x, and %d in all", c.Name, len(w.args), v, len(c.Args))
				}
			}
			for i, p := range c.Pieces {
				n := uint32(len(c.Args))
				if uint32(p.Arg) >= n || (p.Count.From == Argument || p.Count.From == Pointed) && p.Count.N >= n || p.If != nil && uint32(p.If.Arg) >= n {
					t.Errorf("%s: piece %d needs more than the %d arguments: %+v", c.Name, i, n, p)
				}
				if p.Arg > 5 || p.Limit == 0 || (p.Shape == Bytes || p.Shape == Vector) && p.Size == 0 || p.Size > p.Limit {
					t.Errorf("%s: piece %d: %+v", c.Name, i, p)
				}
			}
		}
		t.Logf("%v: %d calls, %d described; not: %s", abi, calls, described, strings.Join(without, " "))
	}
}

func call(t testing.TB, name string) *Call {
	t.Helper()
	for _, c := range Table(ABI64) {
		if c != nil && c.Name == name {
			return c
		}
	}
	t.Fatalf("no system call %s", name)
	return nil
}

// The sets that the code names have to exist, too.
func TestSets(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no sources", err)
	}
	named := regexp.MustCompile(`setOf\("(\w+)"\)`)
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllSubmatch(src, -1) {
			setOf(string(m[1]))
		}
	}
	for _, name := range optionSets {
		setOf(name)
	}
	for _, name := range siginfoCodes {
		setOf(name)
	}
}
