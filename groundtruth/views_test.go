package groundtruth

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/table"
)

// viewCase compares one view with what the guest reports itself.
type viewCase struct {
	view string
	keys []string // columns that name a row where the guest does not know the view's own key
	args []string // of the command, such as --with-something
	// ignore says of a row, the guest's or outsight's, that it is not compared: it is
	// of the program that reports, or the other side cannot know of it.
	ignore func(row map[string]any) bool
	// only are the kernels and userlands on which the guest can report it; empty for all.
	only []string
	// subset says that the guest reports only some of the rows.
	subset bool
	// partly are the kernels on which it is so of a view that others report in full.
	partly []string
	// blur takes from a row, the guest's or outsight's, what the guest cannot always report.
	blur func(row map[string]any)
	// translate brings a row of the guest's into outsight's words.
	translate func(t *testing.T, row map[string]any)
	// near are columns, numbers or times, that may differ by so many units or seconds.
	near map[string]float64
	// exact says of a row that nothing of it may differ all the same.
	exact func(row map[string]any) bool
	// prepare makes ready in the guest what is to be seen.
	prepare func(t *testing.T, g *lab.Guest)
	// undo ends what would be in the way of other views.
	undo func(t *testing.T, g *lab.Guest)
	// lacking matches the messages that name what the kernel lacks: the cells that are
	// missing because of that are not compared.
	lacking *regexp.Regexp
}

// unavailable stands in a row for a cell that outsight says cannot be read from this kernel.
type unavailable struct{}

// missingRE matches what is said of a column some of whose cells could not be read.
var missingRE = regexp.MustCompile(`: (\w+) missing in \d+ of \d+ rows: (.*)`)

var viewCases = map[string]viewCase{}

// register adds the case of a view: a file view_NAME_test.go for each.
func register(c viewCase) {
	if _, taken := viewCases[c.view]; taken {
		panic("two cases for view " + c.view)
	}
	if v, ok := table.Lookup(c.view); ok && c.keys == nil {
		c.keys = table.SpecOf(v).Key
	}
	viewCases[c.view] = c
}

func init() {
	register(viewCase{view: "info"})
}

// viewNIC is a network card, whose driver counts in its own way; it reaches nobody.
var viewNIC = []string{"-netdev", "user,id=nic,restrict=on", "-device", "virtio-net-pci,netdev=nic"}

// viewGuests are the guests in which views are compared.
var viewGuests = []struct {
	name string
	o    lab.Options
}{
	{"5.10", lab.Options{Kernel: "5.10", Memory: gib / 2, SMP: 2, QEMUArgs: viewNIC}},
	{"6.1", lab.Options{Kernel: "6.1", Memory: gib / 2, SMP: 2, QEMUArgs: viewNIC}},
	{"6.12", lab.Options{Kernel: "6.12", Memory: gib / 2, SMP: 2, QEMUArgs: viewNIC}},
	{"7.2", lab.Options{Kernel: "7.2", Memory: gib / 2, SMP: 2, QEMUArgs: viewNIC}},
}

// TestGuestViews compares every view that has a case, in every guest; with OUTSIGHT_SLOW
// in guests of private RAM too. OUTSIGHT_FLAVOUR takes other kernels of Debian's than the
// cloud's: -rt or -amd64. What they show is not in the support tables.
func TestGuestViews(t *testing.T) {
	labtest.NeedQEMU(t)
	for _, guest := range viewGuests {
		for _, private := range []bool{false, true} {
			name := guest.name
			if private {
				if os.Getenv("OUTSIGHT_SLOW") == "" {
					continue
				}
				name += "-private"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if len(casesFor(guest.name)) == 0 {
					t.Skip("none of the views in OUTSIGHT_VIEWS")
				}
				o := guest.o
				o.Kernel += os.Getenv("OUTSIGHT_FLAVOUR")
				o.Private = private
				// A disk with a partition, which cannot be written.
				o.QEMUArgs = append(slices.Clone(o.QEMUArgs), "-drive", "file=fat:"+t.TempDir()+",format=raw,if=virtio,read-only=on")
				o.Modules = append(slices.Clone(o.Modules), "virtio_blk")
				compareViews(t, guests.UpServer(t, o))
			})
		}
	}
}

// compareViews compares every view that can be on the kernel of a guest in which the
// server runs.
func compareViews(t *testing.T, g *lab.Guest) {
	for _, c := range casesFor(kernelOf(g)) {
		t.Run(c.view, func(t *testing.T) {
			if c.prepare != nil {
				c.prepare(t, g)
			}
			if c.undo != nil {
				defer c.undo(t, g)
			}
			c.compare(t, g)
		})
	}
}

// casesFor are the cases for a kernel, those that OUTSIGHT_VIEWS names if it is set.
func casesFor(kernel string) (cases []viewCase) {
	only := strings.FieldsFunc(os.Getenv("OUTSIGHT_VIEWS"), func(r rune) bool { return r == ',' })
	for _, name := range slices.Sorted(maps.Keys(viewCases)) {
		c := viewCases[name]
		if (len(only) == 0 || slices.Contains(only, name)) && (len(c.only) == 0 || slices.Contains(c.only, kernel)) {
			cases = append(cases, c)
		}
	}
	return cases
}

// kernelOf names the kernel of a guest as viewGuests does: in a KVM host it is a file.
func kernelOf(g *lab.Guest) string {
	return cmp.Or(os.Getenv("OUTSIGHT_WITNESS_KERNEL"), strings.TrimSuffix(g.Kernel.Name, os.Getenv("OUTSIGHT_FLAVOUR")))
}

// compare looks, again while anything differs: what changed between the looks is not
// what outsight got wrong. The guest is asked again only then: to ask an emulated one
// takes longest.
func (c viewCase) compare(t *testing.T, g *lab.Guest) {
	c.subset = c.subset || slices.Contains(c.partly, kernelOf(g))
	before := c.inside(t, g)
	var diffs []string
	var n int
	for range rounds {
		outside, unreadable := c.outside(t, g)
		n = len(outside)
		if diffs = append(c.differences(outside, before, before), unreadable...); len(diffs) == 0 {
			break
		}
		after := c.inside(t, g)
		if diffs = append(c.differences(outside, before, after), unreadable...); len(diffs) == 0 {
			break
		}
		before = after
	}
	told := map[string]bool{}
	for _, row := range before {
		for column := range row {
			told[column] = true
		}
	}
	record(t, fact{
		View: c.view, Kernel: kernelOf(g), Source: sourceOf(g), Rows: len(before),
		Columns: slices.Sorted(maps.Keys(told)), Part: c.subset, Equal: len(diffs) == 0,
	})
	if len(diffs) > 0 {
		t.Errorf("%d differences in %d rows:\n%s", len(diffs), n, strings.Join(diffs[:min(len(diffs), 25)], "\n"))
		return
	}
	if len(before) == 0 && len(c.keys) > 0 {
		if c.prepare != nil {
			t.Errorf("%s: made ready, but the guest tells of none", c.view)
		}
		t.Logf("%s: the guest tells of none", c.view)
		return
	}
	t.Logf("%s: %d rows equal", c.view, n)
}

// inside is the guest's word, outside is outsight's, by key. Rows of one key are
// numbered.
func (c viewCase) inside(t *testing.T, g *lab.Guest) map[string]map[string]any {
	t.Helper()
	var rows map[string]map[string]any
	// Once in a thousand times nothing of what was told arrives, although the program
	// ended well: then it is asked once more.
	for tries := 2; ; tries-- {
		out, err := g.Output(t.Context(), "/truth -view "+c.view)
		if err != nil {
			t.Fatalf("truth: %v", err)
		}
		var last map[string]any
		rows, last = c.parse(t, out)
		if last["rows_in_all"] != nil {
			break
		}
		if t.Logf("truth: cut short after %d bytes: %v", len(out), last); tries == 1 {
			t.FailNow()
		}
	}
	if c.translate != nil {
		for _, row := range rows {
			c.translate(t, row)
		}
	}
	return rows
}

func (c viewCase) outside(t *testing.T, g *lab.Guest) (rows map[string]map[string]any, unreadable []string) {
	t.Helper()
	args := append([]string{c.view, targetOf(g), "-o", "json"}, c.args...)
	cmd := exec.Command(command(t), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("outsight %s: %v: %s", strings.Join(args, " "), err, stderr.Bytes())
	}
	if stderr.Len() > 0 {
		t.Logf("%s", stderr.Bytes())
	}
	rows, _ = c.parse(t, out)
	unreadable = unreadableRE.FindAllString(stderr.String(), -1)
	if c.lacking == nil {
		return rows, unreadable
	}
	for _, m := range missingRE.FindAllStringSubmatch(stderr.String(), -1) {
		for _, row := range rows {
			if cell, ok := row[m[1]]; ok && cell == nil && c.lacking.MatchString(m[2]) {
				row[m[1]] = unavailable{}
			}
		}
	}
	return rows, slices.DeleteFunc(unreadable, c.lacking.MatchString)
}

// unreadableRE matches what is said of rows that should be there and are not.
var unreadableRE = regexp.MustCompile(`.*: \d+ of \d+ unreadable.*`)

func (c viewCase) parse(t *testing.T, out []byte) (rows map[string]map[string]any, last map[string]any) {
	t.Helper()
	rows = map[string]map[string]any{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<26)
	count := map[string]int{}
	for lines.Scan() {
		var row map[string]any
		dec := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		dec.UseNumber()
		if err := dec.Decode(&row); err != nil {
			t.Fatalf("%v in %.300q", err, lines.Bytes())
		}
		if row["rows_in_all"] != nil {
			return rows, row
		}
		if c.ignore != nil && c.ignore(row) {
			continue
		}
		if c.blur != nil {
			c.blur(row)
		}
		key := ""
		for _, k := range c.keys {
			key += fmt.Sprintf(" %s=%v", k, row[k])
		}
		if count[key]++; count[key] > 1 {
			key = fmt.Sprintf("%s #%d", key, count[key])
		}
		rows[key], last = row, row
	}
	return rows, last
}

func (c viewCase) differences(outside, before, after map[string]map[string]any) (diffs []string) {
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if _, still := after[key]; still && outside[key] == nil {
			diffs = append(diffs, fmt.Sprintf("not seen:%s: %v", key, before[key]))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(outside)) {
		a, b := before[key], after[key]
		if a == nil && b == nil {
			if !c.subset {
				diffs = append(diffs, fmt.Sprintf("not told:%s: %v", key, outside[key]))
			}
			continue
		}
		if a == nil || b == nil {
			continue // it came or went meanwhile, and changed on its way
		}
		for _, column := range slices.Sorted(maps.Keys(a)) {
			if _, ok := outside[key][column].(unavailable); ok {
				continue
			}
			got, was, is := show(outside[key], column), show(a, column), show(b, column)
			if got != was && got != is && !c.close(column, outside[key], a) && !c.close(column, outside[key], b) {
				diffs = append(diffs, fmt.Sprintf("%s: %s is %s; the guest says %s, then %s", key, column, got, was, is))
			}
		}
	}
	return diffs
}

// show is a cell as JSON; "absent" where the row has no such column.
func show(row map[string]any, column string) string {
	v, ok := row[column]
	if !ok {
		return "absent"
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
