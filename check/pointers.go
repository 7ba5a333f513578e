package check

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "code-pointer",
		Title:     "Pointers to functions that lead to code of unknown owners",
		Severity:  Critical,
		Technique: "T1014", // Rootkit
		Source:    "every view with columns NAME_owner: system calls, IDT, notifiers, netfilter, LSM, kprobes, ftrace, tracepoints, timers, work, kernel threads, drivers, file and network operations …",
		Proves: `The kernel will call, or has been told to call, code that belongs neither to its own text nor to a module, BPF program or trampoline that it has on its
lists. A healthy kernel has no such pointer, as far as its lists of code could be read: what could not is reported as a gap.`,
		Blind: `A pointer that leads to a wrong function of the kernel's own, or into a module that is on the list: look at the owner in the view. Pointers in objects
that no view shows.`,
		Next: `Disassemble the code that the pointer leads to with the command shown, and take it out with "outsight read TARGET ADDRESS 4096 -o FILE". What is hooked says what for: reading
of directories and of /proc hides, netfilter and protocols wait for a signal from the network, keyboard notifiers log keys.`,
		Example: `The handler of system call 17 was replaced:

    $ outsight check lab:demo
    SEVERITY  CONFIDENCE  CHECK         TITLE
    critical  certain     code-pointer  function of syscalls 17 leads to 0xffff8cc0c2f98000, whose owner is unknown
    $ outsight syscalls lab:demo --where 'number == 17'
    $ outsight disassemble lab:demo 0xffff8cc0c2f98000`,
		Quick: true,
		Run:   codePointers,
	})
}

func codePointers(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		for _, v := range table.All() {
			columns := codeColumns(v)
			if len(columns) == 0 || ctx.Err() != nil {
				continue
			}
			if !pointersOf(ctx, s, v, columns, yield) {
				return
			}
		}
	}
}

// codeColumn is where a view has a pointer to a function, and whose function that is.
type codeColumn struct{ at, owner int }

// noOwner is what a column NAME_owner shows of code whose owner is unknown.
const noOwner = "none"

// codeColumns are the columns of a view that show pointers to functions.
func codeColumns(v table.View) (cs []codeColumn) {
	spec := table.SpecOf(v)
	// Who asked for memory of vmalloc is never called, and is gone where that was the function which a module starts with: its .init.text
	// is freed (ip_vs up to 5.18).
	if spec.Host || spec.Exhaustive || v.Name() == "vmalloc" {
		return nil
	}
	columns := v.Columns()
	for i, c := range columns {
		name, ok := strings.CutSuffix(c.Name, "_owner")
		if at := table.ColumnIndex(columns, name); ok && at >= 0 && columns[at].Type == table.Addr && table.ColumnIndex(columns, name+"_symbol") >= 0 {
			cs = append(cs, codeColumn{at, i})
		}
	}
	return cs
}

func pointersOf(ctx context.Context, s *Subject, v table.View, cs []codeColumn, yield func(*Finding, error) bool) bool {
	shown := s.shown(ctx, v, cs)
	for _, p := range shown.all {
		if p.owner != noOwner {
			continue
		}
		f := &Finding{
			Confidence: Certain,
			Title:      fmt.Sprintf("%s of %s leads to %#x, whose owner is unknown", p.column, p.of, uint64(p.at)),
			Object:     Object{Kind: "pointer", Name: p.of + " " + p.column},
			Expected:   "the address of a function of the kernel, a module or a BPF program",
			Seen:       fmt.Sprintf("%#x", uint64(p.at)),
			Evidence:   []Evidence{{Text: "what it leads to", Addr: p.at, Bytes: codeAt(s, uint64(p.at))}},
			Basis:      "the guest's kernel text, and its lists of modules, BPF programs and trampolines",
			Show:       fmt.Sprintf("outsight disassemble {} %#x", uint64(p.at)),
			nextAddr:   p.at,
		}
		if !yield(f, nil) {
			return false
		}
	}
	return shown.err == nil || yield(nil, shown.err)
}

// named are the columns that name a row of a view: those of its name, or else its keys.
func named(v table.View, columns []table.Column) (names table.Selection) {
	for _, name := range append([]string{"name", "chain", "symbol"}, table.SpecOf(v).Key...) {
		if i := table.ColumnIndex(columns, name); i >= 0 && !slices.Contains(names, i) {
			names = append(names, i)
		}
	}
	return names
}

// describe names a row of a view.
func describe(v table.View, names table.Selection, row table.Row) string {
	words := []string{v.Name()}
	for _, i := range names {
		// A probe is named by what it probes.
		if text := row[i].String(); text != "" && !row[i].IsNull() && text != words[len(words)-1] {
			words = append(words, text)
		}
	}
	return strings.Join(words, " ")
}

// codeShown is how many bytes of code are evidence.
const codeShown = 16

// codeAt is the beginning of the code at an address; nil if there is none.
func codeAt(s *Subject, a uint64) []byte { return bytesAt(s, virt.Addr(a), codeShown) }

// bytesAt are n bytes at an address; nil if they cannot be read.
func bytesAt(s *Subject, a virt.Addr, n int) []byte {
	b := make([]byte, n)
	if err := s.Linux.ReadAt(b, a); err != nil {
		return nil
	}
	return b
}
