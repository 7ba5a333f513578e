package groundtruth

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/table"
)

// live are the sources that are not dumps, as sourceOf names them.
var live = []string{"shared", "private", "kvm", "debian", "libvirt", "firecracker", "cloud-hypervisor"}

// kernels are those in which views are compared.
func kernels() []string {
	var names []string
	for _, g := range viewGuests {
		names = append(names, g.name)
	}
	return names
}

// guestViews are the views that ask a guest, in the order of the help.
func guestViews() []table.View {
	var views []table.View
	for _, group := range table.Groups {
		for _, v := range table.All() {
			if s := table.SpecOf(v); !s.Host && (s.Group == group || s.Group == "" && group == table.Processes) {
				views = append(views, v)
			}
		}
	}
	return views
}

// mark is what the comparison of a view with the guest's own word showed.
func (p *page) mark() string {
	if p == nil {
		return "–"
	}
	mark := "–"
	for _, s := range live {
		switch p.Sources[s] {
		case "differs":
			return "✗"
		case "equal":
			if mark = "●"; p.Part {
				mark = "◐"
			}
		case "none":
			if mark == "–" {
				mark = "○"
			}
		}
	}
	return mark
}

// formats are the dumps that gave what the paused guest gave.
func (p *page) formats() (equal, all []string) {
	if p == nil {
		return nil, nil
	}
	for _, s := range slices.Sorted(maps.Keys(p.Sources)) {
		if slices.Contains(live, s) {
			continue
		}
		all = append(all, s)
		if p.Sources[s] != "differs" {
			equal = append(equal, s)
		}
	}
	return equal, all
}

// where says for one source on which kernels it was compared.
func (b book) where(view, source string) string {
	var on []string
	for _, k := range kernels() {
		if p := b.page(view, k); p != nil && (p.Sources[source] == "equal" || p.Sources[source] == "none") {
			on = append(on, k)
		}
	}
	switch len(on) {
	case 0:
		return ""
	case len(kernels()):
		return source
	}
	return source + " " + strings.Join(on, " ")
}

// dumps says for how many formats of dumps the view was the paused guest's.
func (b book) dumps(view string) string {
	counts := map[int][]string{}
	for _, k := range kernels() {
		if equal, _ := b.page(view, k).formats(); len(equal) > 0 {
			counts[len(equal)] = append(counts[len(equal)], k)
		}
	}
	var parts []string
	for _, n := range slices.Backward(slices.Sorted(maps.Keys(counts))) {
		part := fmt.Sprintf("%d formats of dumps", n)
		if n == 1 {
			part = "1 format of dumps"
		}
		if len(counts[n]) < len(kernels()) {
			part += " " + strings.Join(counts[n], " ")
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

const legend = `● equal, every row and every column that the guest can tell · ◐ equal, in the rows that the
guest can tell · ○ compared, but the guest has none · – not compared · ✗ differs
`

// sentence is what the README says of the comparisons.
func (b book) sentence() string {
	sources := map[string]bool{}
	var views int
	part := 0
	gaps, differ := exceptions{}, exceptions{}
	for _, v := range guestViews() {
		var none, wrong []string
		compared, inPart := false, false
		for _, k := range kernels() {
			p := b.page(v.Name(), k)
			if p != nil {
				for s := range p.Sources {
					sources[s] = true
				}
			}
			switch p.mark() {
			case "●":
				compared = true
			case "◐":
				compared, inPart = true, true
			case "✗":
				wrong = append(wrong, k)
			default:
				none = append(none, k)
			}
		}
		if compared {
			views++
		}
		if inPart {
			part++
		}
		gaps.add(v.Name(), none)
		differ.add(v.Name(), wrong)
	}
	s := fmt.Sprintf("%d views × %d kernels (Debian's %s) × %d sources, compared field by field", views, len(kernels()), strings.Join(kernels(), ", "), len(sources))
	var but []string
	if len(differ) > 0 {
		but = append(but, "different: "+differ.String())
	}
	if len(gaps) > 0 {
		but = append(but, "not compared: "+gaps.String())
	}
	if part > 0 {
		but = append(but, fmt.Sprintf("%d views also have rows that a guest cannot show of itself", part))
	}
	if len(but) > 0 {
		s += "; the exceptions: " + strings.Join(but, "; ")
	}
	return s + ".\n"
}

// exceptions are views by the kernels on which they are one.
type exceptions map[string][]string

func (e exceptions) add(view string, kernels []string) {
	if len(kernels) > 0 {
		on := strings.Join(kernels, ", ")
		e[on] = append(e[on], "`"+view+"`")
	}
}

func (e exceptions) String() string {
	var parts []string
	for _, on := range slices.Sorted(maps.Keys(e)) {
		parts = append(parts, strings.Join(e[on], ", ")+" on "+on)
	}
	return strings.Join(parts, "; ")
}

// summary is the table at the head of docs/support.md.
func (b book) summary() string {
	var s strings.Builder
	head := "| view | " + strings.Join(kernels(), " | ") + " | compared in |\n|---|" + strings.Repeat("---|", len(kernels())+1) + "\n"
	s.WriteString(head)
	for _, v := range guestViews() {
		fmt.Fprintf(&s, "| `%s` ", v.Name())
		for _, k := range kernels() {
			fmt.Fprintf(&s, "| %s ", b.page(v.Name(), k).mark())
		}
		var in []string
		for _, source := range live {
			if w := b.where(v.Name(), source); w != "" {
				in = append(in, w)
			}
		}
		if d := b.dumps(v.Name()); d != "" {
			in = append(in, d)
		}
		fmt.Fprintf(&s, "| %s |\n", strings.Join(in, ", "))
	}
	return s.String() + "\n" + legend
}

// details is docs/support.md.
func (b book) details() string {
	var s strings.Builder
	s.WriteString(`# What was compared

Made by ` + "`make support`" + ` from what the tests of ` + "`groundtruth/`" + ` found; do not edit.
Each view was compared with the guest's own answers, row by row and column by column: its /proc,
/sys, netlink, system calls. "shared" and "private" are ways to run a guest's RAM under TCG,
"kvm" is a guest on KVM, "firecracker" and "cloud-hypervisor" are others' machines on KVM, "debian" a whole Debian with systemd, web server, SSH session and
container. A dump was written of a paused guest, and must give, byte for byte, what the paused
guest gives.

` + b.summary() + "\n")
	for _, v := range guestViews() {
		fmt.Fprintf(&s, "## %s\n\n", v.Name())
		told := map[string]bool{}
		for _, k := range kernels() {
			p := b.page(v.Name(), k)
			if p == nil {
				fmt.Fprintf(&s, "- %s: not compared\n", k)
				continue
			}
			var in []string
			for _, source := range live {
				if r := p.Sources[source]; r != "" {
					in = append(in, source+" "+r)
				}
			}
			for _, c := range p.Columns {
				told[c] = true
			}
			line := fmt.Sprintf("- %s: %s", k, p.mark())
			if p.Rows > 0 {
				line += fmt.Sprintf(" %d rows", p.Rows)
			}
			if len(in) > 0 {
				line += "; " + strings.Join(in, ", ")
			}
			if equal, all := p.formats(); len(all) > 0 {
				line += fmt.Sprintf("; dumps equal, %d of %d: %s", len(equal), len(all), strings.Join(equal, ", "))
			}
			s.WriteString(line + "\n")
		}
		s.WriteString(columnsLine(v, told) + "\n")
	}
	return strings.TrimRight(s.String(), "\n") + "\n"
}

// columnsLine says which columns the guest told, and which not.
func columnsLine(v table.View, told map[string]bool) string {
	if len(told) == 0 {
		return ""
	}
	var with, without []string
	for _, c := range v.Columns() {
		switch {
		case c.Option:
		case told[c.Name]:
			with = append(with, c.Name)
		default:
			without = append(without, c.Name)
		}
	}
	line := "- columns compared: " + strings.Join(with, ", ")
	if len(without) > 0 {
		line += "; not shown by the guest: " + strings.Join(without, ", ")
	}
	return line + "\n"
}

// TestBook tests how facts become marks.
func TestBook(t *testing.T) {
	b := book{}
	for _, f := range []fact{
		{View: "ps", Kernel: "6.12", Source: "shared", Rows: 3, Columns: []string{"pid"}, Equal: true},
		{View: "ps", Kernel: "6.12", Source: "elf", Rows: 3, Equal: true},
		{View: "ps", Kernel: "6.12", Source: "lime", Rows: 3},
		{View: "ps", Kernel: "7.2", Source: "shared", Rows: 3, Part: true, Equal: true},
		{View: "ps", Kernel: "6.1", Source: "shared", Equal: true},
		{View: "ps", Kernel: "5.10", Source: "private", Rows: 3, Equal: true},
		{View: "ps", Kernel: "5.10", Source: "shared", Rows: 3},
	} {
		b.add(f)
	}
	for kernel, want := range map[string]string{"6.12": "●", "7.2": "◐", "6.1": "○", "5.10": "✗", "4.4": "–"} {
		if got := b.page("ps", kernel).mark(); got != want {
			t.Errorf("%s: mark %s, want %s", kernel, got, want)
		}
	}
	if got, want := b.where("ps", "shared"), "shared 6.1 6.12 7.2"; got != want {
		t.Errorf("shared where %q, want %q", got, want)
	}
	if got, want := b.dumps("ps"), "1 format of dumps 6.12"; got != want {
		t.Errorf("dumps %q, want %q", got, want)
	}
	// A later comparison that is equal takes the place of one that was not.
	b.add(fact{View: "ps", Kernel: "5.10", Source: "shared", Rows: 3, Equal: true})
	if got := b.page("ps", "5.10").mark(); got != "●" {
		t.Errorf("after a later comparison: %s", got)
	}
}
