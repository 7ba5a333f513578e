package groundtruth

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// The tools of a distribution are a witness that knows nothing of outsight: what they
// say is compared where it means the same.

// cells are what a tool says of one thing, under the names of a view's columns.
type cells map[string]string

// toolCase compares the rows of a view with what a tool says.
type toolCase struct {
	name    string
	command string // in the guest
	view    string
	args    []string
	// told takes the tool's output apart, by a key of its own choice.
	told func(t *testing.T, out string) map[string]cells
	// row is the key and the cells of a row of the view; no key for what the tool does
	// not report.
	row func(row map[string]any) (key string, c cells)
}

// compareTools compares all tools, again while anything differs.
func compareTools(t *testing.T, g *lab.Guest) {
	t.Helper()
	var script strings.Builder
	for _, c := range toolCases {
		fmt.Fprintf(&script, "echo '@@@ %s'\n%s\n", c.name, c.command)
	}
	ask := func() map[string]string {
		out, err := g.Output(t.Context(), script.String()+":\n")
		if err != nil {
			t.Fatal(err)
		}
		said := map[string]string{}
		for part := range strings.SplitSeq("\n"+string(out), "\n@@@ ") {
			name, text, _ := strings.Cut(part, "\n")
			said[name] = text
		}
		return said
	}
	link := strings.TrimSpace(labtest.Output(t, g, "readlink /proc/1/ns/net"))
	firstNetNS = strings.TrimSuffix(strings.TrimPrefix(link, "net:["), "]")
	before := ask()
	after := before
	for _, c := range toolCases {
		t.Run(c.name, func(t *testing.T) {
			told := c.told(t, before[c.name])
			if len(told) == 0 {
				t.Fatalf("%s tells of nothing: %.300q", c.command, before[c.name])
			}
			diffs := c.differences(c.seen(t, g), told, told)
			for try := 0; len(diffs) > 0 && try < rounds-1; try++ {
				seen := c.seen(t, g)
				before, after = after, ask()
				diffs = c.differences(seen, c.told(t, before[c.name]), c.told(t, after[c.name]))
			}
			if len(diffs) > 0 {
				t.Errorf("%d differences:\n%s", len(diffs), strings.Join(diffs[:min(len(diffs), 25)], "\n"))
				return
			}
			t.Logf("%s: %d rows equal", c.name, len(told))
		})
	}
}

// differences are those of what did not change between the tool's two answers.
func (c toolCase) differences(seen, before, after map[string]cells) (diffs []string) {
	for _, key := range slices.Sorted(maps.Keys(before)) {
		for _, column := range slices.Sorted(maps.Keys(before[key])) {
			want := before[key][column]
			if still, ok := after[key][column]; !ok || still != want {
				continue
			}
			got, ok := seen[key][column]
			if !ok {
				diffs = append(diffs, fmt.Sprintf("%s: not seen: %v", key, before[key]))
				break
			}
			if got != want {
				diffs = append(diffs, fmt.Sprintf("%s: %s is %q, and %s says %q", key, column, got, c.name, want))
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(seen)) {
		if before[key] == nil && after[key] == nil {
			diffs = append(diffs, fmt.Sprintf("%s does not tell of %s: %v", c.name, key, seen[key]))
		}
	}
	return diffs
}

func (c toolCase) seen(t *testing.T, g *lab.Guest) map[string]cells {
	t.Helper()
	seen := map[string]cells{}
	rows, _ := viewCase{view: c.view, args: c.args}.outside(t, g)
	for _, row := range rows {
		if key, cells := c.row(row); key != "" {
			seen[key] = cells
		}
	}
	return seen
}

// cell is a column of a row as text; "" for what is missing.
func cell(row map[string]any, column string) string {
	switch v := row[column].(type) {
	case nil:
		return ""
	case []any:
		words := make([]string, len(v))
		for i := range v {
			words[i] = fmt.Sprint(v[i])
		}
		return strings.Join(words, ",")
	default:
		return fmt.Sprint(v)
	}
}

// some are cells of a row, under their own names.
func some(row map[string]any, columns ...string) cells {
	c := cells{}
	for _, column := range columns {
		c[column] = cell(row, column)
	}
	return c
}

// rowsOf are the rows that the command prints as JSON. Numbers stay as they are written.
func rowsOf(t *testing.T, args ...string) (all []map[string]any) {
	t.Helper()
	a := run(t, nil, append(args, "-o", "json")...)
	if a.status != 0 {
		t.Fatalf("outsight %s: exit status %d: %s", strings.Join(args, " "), a.status, a.stderr)
	}
	for line := range strings.Lines(a.stdout) {
		dec := json.NewDecoder(strings.NewReader(line))
		dec.UseNumber()
		var row map[string]any
		if err := dec.Decode(&row); err != nil {
			t.Fatalf("%v in %.300q", err, line)
		}
		all = append(all, row)
	}
	return all
}

// parseObjects reads a tool's JSON: a list of objects, or an object that has one.
func parseObjects(t *testing.T, out string) []map[string]any {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(out))
	dec.UseNumber()
	var all any
	if err := dec.Decode(&all); err != nil {
		t.Fatalf("%v in %.300q", err, out)
	}
	var objects []map[string]any
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			objects = append(objects, v)
			for _, key := range []string{"namespaces", "filesystems", "children"} {
				walk(v[key])
			}
		}
	}
	walk(all)
	return objects
}

// sorted is a list with commas, in order.
func sorted(list string) string {
	words := strings.Split(list, ",")
	slices.Sort(words)
	return strings.Join(words, ",")
}
