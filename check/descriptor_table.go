package check

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "descriptor-table",
		Title:     "Gates and segments through which programs could enter the kernel",
		Severity:  Critical,
		Technique: "T1014", // Rootkit
		Source: `each processor's gdt_page and cpu_tss_rw, with their mappings in the processor's cpu_entry_area; idt_table and idt_descr; the LDT of each process
(mm->context.ldt)`,
		Proves: `A table that the processor itself obeys has an entry that Linux never makes: a call gate, or code of the kernel's privilege, that any program can jump to; an interrupt that
programs may raise, or that leads to a function which is no entry of the kernel; a task state segment or a stack for exceptions outside of the processor's own entry area.`,
		Blind: `Which tables the processors really use: processor-state compares their registers. A gate that leads to another entry of the kernel's own.`,
		Next: `A gate is a door without a hook: look for the program that goes through it, in /dev and by injected-code. Show the table with the command, and disassemble what
its entry leads to.`,
		Example: `A call gate was put into an unused entry of the global descriptor table:

    $ outsight check lab:demo
    SEVERITY  CONFIDENCE  CHECK             TITLE
    critical  certain     descriptor-table  entry 7 of the descriptor table of processor 0 is a call gate
    $ outsight read lab:demo 0xffff888007c0b038 --size 16`,
		Steady: true,
		Run:    descriptorTables,
	})
}

// plainSegments are the entries of the global descriptor table that are the same in every 64-bit
// Linux, without their accessed bits (gdt_page in arch/x86/kernel/cpu/common.c).
var plainSegments = map[int]uint64{
	1: 0x00cf_9a00_0000_ffff, // the kernel's code of 32 bits
	2: 0x00af_9a00_0000_ffff, // the kernel's code
	3: 0x00cf_9200_0000_ffff, // the kernel's data
	4: 0x00cf_fa00_0000_ffff, // programs' code of 32 bits
	5: 0x00cf_f200_0000_ffff, // programs' data
	6: 0x00af_fa00_0000_ffff, // programs' code
}

func descriptorTables(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		online, err := hooks.OnlineProcessors(s.Linux)
		if err != nil {
			yield(nil, err)
			return
		}
		for _, cpu := range slices.Sorted(maps.Keys(online)) {
			t, err := hooks.TablesOf(s.Linux, cpu)
			if err != nil {
				if !yield(nil, err) || errors.Is(err, kobj.ErrUnsupported) {
					return
				}
				continue
			}
			for _, f := range s.tablesOf(t) {
				if !yield(f, nil) {
					return
				}
			}
		}
		if !s.gates(ctx, yield) {
			return
		}
		s.localTables(ctx, yield)
	}
}

// globalTable judges the global descriptor table of one processor.
func globalTable(t hooks.ProcessorTables) (fs []*Finding) {
	table := fmt.Sprintf("the descriptor table of processor %d", t.CPU)
	for _, g := range t.Segments {
		switch want, plain := plainSegments[g.Index]; {
		case plain && g.Value() != want:
			fs = append(fs, foundSegment(g, table, fmt.Sprintf("has the value %#x", g.Raw), fmt.Sprintf("%#x, as in every Linux", want)))
		case plain:
		case isTail(t.Segments, g):
			if g.Raw>>32 != 0 {
				fs = append(fs, foundSegment(g, table, "hides an entry in the second half of another", "the upper half of an address, and zeros"))
			}
		case g.Present():
			if what := strangeSegment(g, hooks.IsSystem(g.Index)); what != "" {
				fs = append(fs, foundSegment(g, table, "is "+what, "an unused entry, or data of programs"))
			}
		}
	}
	return fs
}

// tablesOf judges the descriptors of one processor.
func (s *Subject) tablesOf(t hooks.ProcessorTables) (fs []*Finding) {
	fs = globalTable(t)
	same, err := hooks.SameMemory(s.Linux, t.TSS, t.TSSBase)
	if t.Area == 0 || err != nil || !same {
		fs = append(fs, s.foundTable(t, "state", fmt.Sprintf("the task state segment of processor %d is %#x, which is not the kernel's cpu_tss_rw", t.CPU, uint64(t.TSSBase)),
			fmt.Sprintf("the mapping of %#x in the processor's entry area", uint64(t.TSS)), t.TSSBase))
		return fs
	}
	for i, at := range t.Stacks {
		if at == 0 && i > 0 || at > t.Area && at <= t.AreaEnd {
			continue
		}
		name := "for entries from programs"
		if i > 0 {
			name = fmt.Sprintf("number %d for exceptions", i)
		}
		fs = append(fs, s.foundTable(t, fmt.Sprintf("stack %d", i), fmt.Sprintf("the stack %s of processor %d is at %#x, outside of its entry area", name, t.CPU, uint64(at)),
			fmt.Sprintf("an address from %#x to %#x", uint64(t.Area), uint64(t.AreaEnd)), at))
	}
	return fs
}

// isTail reports whether g is the second half of a present system segment, which is twice as long
// as others and has no type of its own.
func isTail(all []hooks.Segment, g hooks.Segment) bool {
	return g.Index > 0 && hooks.IsSystem(g.Index) && hooks.IsSystem(g.Index-1) && all[g.Index-1].System() && all[g.Index-1].Present()
}

// strangeSegment says what is wrong with a segment in an entry whose use changes; empty for
// nothing.
func strangeSegment(g hooks.Segment, system bool) string {
	switch {
	case g.Gate():
		return "a " + g.Kind()
	case g.System() && !system:
		return "a " + g.Kind()
	case g.Conforming():
		return "a conforming code segment"
	case g.Code() && g.DPL() < 3:
		return fmt.Sprintf("a code segment of ring %d", g.DPL())
	}
	return ""
}

func foundSegment(g hooks.Segment, table, is, expected string) *Finding {
	return &Finding{
		Confidence: Certain,
		Title:      fmt.Sprintf("entry %d of %s %s", g.Index, table, is),
		Object:     Object{Kind: "descriptor", Name: fmt.Sprintf("entry %d of %s", g.Index, table), Addr: g.Address},
		Expected:   expected,
		Seen:       fmt.Sprintf("%#016x, a %s of ring %d", g.Raw, g.Kind(), g.DPL()),
		Evidence:   []Evidence{{Text: "the entry", Addr: g.Address, Bytes: binary.LittleEndian.AppendUint64(nil, g.Raw)}},
		Basis:      "what the kernel's own code puts into its tables",
		Show:       fmt.Sprintf("outsight read {} %#x 16", uint64(g.Address)),
	}
}

func (s *Subject) foundTable(t hooks.ProcessorTables, aspect, title, expected string, at virt.Addr) *Finding {
	return &Finding{
		Confidence: Certain,
		Title:      title,
		Object:     Object{Kind: "task state segment", Name: fmt.Sprintf("of processor %d", t.CPU), Addr: t.TSS},
		Aspect:     aspect,
		Expected:   expected,
		Seen:       fmt.Sprintf("%#x", uint64(at)),
		Evidence:   []Evidence{{Text: "the task state segment", Addr: t.TSS}, {Text: "the descriptor table", Addr: t.GDT}},
		Basis:      "the processor's tables against the kernel's own variables and page tables",
		Show:       fmt.Sprintf("outsight read {} %#x 104", uint64(t.TSS)),
	}
}

// gates judges the gates of the interrupt descriptor table, whose handlers code-pointer finds the
// owners of.
func (s *Subject) gates(ctx context.Context, yield func(*Finding, error) bool) bool {
	d, err := hooks.IDTDescriptor(s.Linux)
	if err != nil {
		return yield(nil, err)
	}
	if !d.SameMemory {
		f := &Finding{
			Confidence: Certain,
			Title:      fmt.Sprintf("what processors are started with as interrupt descriptor table is %#x, which is not idt_table", uint64(d.Base)),
			Object:     Object{Kind: "descriptor table", Name: "idt_descr", Addr: d.Base},
			Expected:   fmt.Sprintf("a mapping of idt_table at %#x", uint64(d.Table)),
			Seen:       fmt.Sprintf("%#x", uint64(d.Base)),
			Evidence:   []Evidence{{Text: "the table that idt_descr names", Addr: d.Base}, {Text: "idt_table", Addr: d.Table}},
			Basis:      "the kernel's variables, compared by its page tables",
			Show:       "outsight idt {}",
		}
		if !yield(f, nil) {
			return false
		}
	}
	entries := s.between("__entry_text_start", "__entry_text_end")
	early := s.between("_sinittext", "_einittext")
	for g, err := range hooks.Gates(ctx, s.Linux, d.Table, d.Limit) {
		if err != nil {
			return yield(nil, err)
		}
		if f := s.gate(g, entries, early); f != nil && !yield(f, nil) {
			return false
		}
	}
	return true
}

// gate judges one gate: entries is the text that all interrupts enter by (.entry.text, since 5.8),
// and early that of the handlers which exceptions without one of their own keep from the boot.
func (s *Subject) gate(g *hooks.Gate, entries, early run) *Finding {
	if !g.Present {
		return nil
	}
	const breakpoint, overflow, oldCall, kernelCode, exceptions = 3, 4, 0x80, 0x10, 32
	byPrograms := g.Vector == breakpoint || g.Vector == overflow || g.Vector == oldCall
	f := &Finding{
		Confidence: Certain,
		Object:     Object{Kind: "gate", Name: fmt.Sprintf("of vector %d", g.Vector), Addr: g.Address},
		Evidence:   []Evidence{{Text: "the gate", Addr: g.Address}, {Text: "its handler", Addr: g.Handler, Bytes: codeAt(s, uint64(g.Handler))}},
		Basis:      "the kernel's interrupt descriptor table",
		Show:       fmt.Sprintf("outsight idt {} --where 'vector == %d'", g.Vector),
	}
	switch {
	case g.DPL != 0 && !byPrograms:
		f.Title = fmt.Sprintf("programs can raise interrupt %d by an instruction", g.Vector)
		f.Expected, f.Seen = "ring 0: of all vectors, programs may raise 3, 4 and 128 alone", fmt.Sprintf("ring %d", g.DPL)
	case g.Segment != kernelCode || g.Type != "interrupt" && g.Type != "trap":
		f.Title = fmt.Sprintf("the gate of vector %d is of type %s, for segment %#x", g.Vector, g.Type, g.Segment)
		f.Expected, f.Seen = "an interrupt or trap gate for the kernel's code, 0x10", fmt.Sprintf("type %s, segment %#x", g.Type, g.Segment)
	case s.Linux.Since(5, 8) && entries.end > entries.start && !entries.holds(g.Handler) && (g.Vector >= exceptions || !early.holds(g.Handler)):
		f.Title = fmt.Sprintf("interrupt %d leads to %#x, where no interrupt enters the kernel", g.Vector, uint64(g.Handler))
		f.Expected = fmt.Sprintf("a handler in the kernel's entry text, %#x to %#x", uint64(entries.start), uint64(entries.end))
		f.Seen = fmt.Sprintf("%#x", uint64(g.Handler))
		if owners, err := s.Owners(); err == nil {
			if o := owners.CodeAt(g.Handler); o.Kind != linux.OwnerNone {
				f.Seen += ", " + o.Function() + " of " + o.String()
			}
		}
	default:
		return nil
	}
	return f
}

// localTables judges the LDTs of processes: modify_ldt makes nothing but segments of programs.
func (s *Subject) localTables(ctx context.Context, yield func(*Finding, error) bool) {
	ps, err := s.Programs()
	if err != nil {
		yield(nil, err)
		return
	}
	for _, p := range ps.all {
		if ctx.Err() != nil {
			return
		}
		segments, err := hooks.LDT(s.Linux, p.MM)
		if errors.Is(err, kobj.ErrUnsupported) {
			return // built without modify_ldt
		}
		if err != nil {
			if p.Task.Released(ctx) {
				continue
			}
			if !yield(nil, fmt.Errorf("process %d: %w", p.PID, err)) {
				return
			}
			continue
		}
		for _, g := range segments {
			if !g.Present() || !g.System() && g.DPL() == 3 && !g.Conforming() {
				continue
			}
			f := foundSegment(g, fmt.Sprintf("the LDT of process %d (%s)", p.PID, p.Comm), "is a "+g.Kind(), "segments of ring 3 alone, as modify_ldt makes them")
			f.Object.Kind, f.Object.PID, f.Object.Name = "process", p.PID, p.Comm
			f.Aspect = fmt.Sprintf("entry %d", g.Index)
			if !yield(f, nil) {
				return
			}
		}
	}
}
