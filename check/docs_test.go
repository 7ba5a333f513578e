package check_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/check"
)

var update = flag.Bool("update", false, "write docs/checks again")

// docs is where the pages of the checks are.
const docs = "../docs/checks"

// TestPages: there is a page for each check, and it says what the check says of itself. -update
// writes them.
func TestPages(t *testing.T) {
	pages := map[string]string{"README.md": index()}
	for _, c := range check.All() {
		pages[c.ID+".md"] = page(c)
	}
	if *update {
		if err := os.MkdirAll(docs, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range pages {
		path := filepath.Join(docs, name)
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("%s is not what the check says of itself (%v): go test ./check -run TestPages -update", path, err)
		}
	}
	files, err := filepath.Glob(docs + "/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, ok := pages[filepath.Base(f)]; !ok {
			t.Errorf("%s is of no check", f)
		}
	}
}

func index() string {
	var b strings.Builder
	b.WriteString("# What outsight check looks for\n\n<!-- Written by go test ./check -run TestPages -update. -->\n\n| check | looks for | severity | ATT&CK |\n|---|---|---|---|\n")
	for _, c := range check.All() {
		fmt.Fprintf(&b, "| [%s](%s.md) | %s | %s | %s |\n", c.ID, c.ID, c.Title, c.Severity, technique(c.Technique))
	}
	return b.String()
}

func technique(id string) string {
	return "[" + id + "](https://attack.mitre.org/techniques/" + strings.ReplaceAll(id, ".", "/") + "/)"
}

func page(c *check.Check) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n<!-- Written by go test ./check -run TestPages -update. -->\n\n%s. Severity: %s. ATT&CK: %s.\n", c.ID, c.Title, c.Severity, technique(c.Technique))
	line := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	fmt.Fprintf(&b, "\n**Compares**: %s\n\n**Proves**: %s\n\n**Cannot see**: %s\n\n**What to do**: %s\n\n    outsight check TARGET --only %s\n", line(c.Source), line(c.Proves), line(c.Blind), line(c.Next), c.ID)
	if c.Example != "" {
		fmt.Fprintf(&b, "\n## Example\n\n%s\n", strings.TrimSpace(c.Example))
	}
	return b.String()
}
