package check

import (
	"context"
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/linux/perf"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/vm"
)

// same reports whether two addresses are the same memory: one that is not mapped is not.
func (w *registerWalk) same(a, b virt.Addr) bool {
	if a == b {
		return true
	}
	same, err := hooks.SameMemory(w.linux, a, b)
	return err == nil && same
}

// processor judges one processor, and returns which of the kernel's it is, by TR or GDTR: -1 if
// none of its tables is the kernel's. Then it runs something else, as firmware in system management
// mode.
func (w *registerWalk) processor(ctx context.Context, r vm.Registers) int {
	byTask := slices.IndexFunc(w.tables, func(t hooks.ProcessorTables) bool { return w.same(virt.Addr(r.TR), t.TSS) })
	byTable := slices.IndexFunc(w.tables, func(t hooks.ProcessorTables) bool { return w.same(virt.Addr(r.GDT), t.GDT) })
	byGates := slices.ContainsFunc(w.idt, func(a virt.Addr) bool { return w.same(virt.Addr(r.IDT), a) })
	if byTask < 0 && byTable < 0 && !byGates {
		return -1
	}
	at := max(byTask, byTable)
	if byTask >= 0 {
		at = byTask
	}
	cpu, known := r.CPU, at >= 0
	if known {
		if cpu = w.tables[at].CPU; !w.online[cpu] {
			return cpu // it is being brought up, or taken down
		}
	}
	// A register that is 0 is one that the dump does not have; with FRED, the table of interrupts is
	// not used.
	if r.IDT != 0 && !byGates {
		f := w.note(cpu, "IDTR", Certain, fmt.Sprintf("processor %d uses an interrupt table at %#x, which is not the kernel's", cpu, r.IDT),
			"the kernel's idt_table, or its mapping in the entry areas", fmt.Sprintf("%#x", r.IDT), virt.Addr(r.IDT))
		f.Show = fmt.Sprintf("outsight idt {} --where 'cpu == %d'", r.CPU)
	}
	// A processor that ran guests of its own is left with a limit of 0xffff (Intel SDM volume 3, 28.5.2).
	if byGates && r.IDTLimit != 0 && r.IDTLimit != idtLimit && r.IDTLimit != anyLimit && r.CR4&cr4FRED == 0 {
		w.note(cpu, "limit of IDTR", Certain, fmt.Sprintf("the interrupt table of processor %d has a limit of %#x", cpu, r.IDTLimit),
			fmt.Sprintf("%#x", idtLimit), fmt.Sprintf("%#x", r.IDTLimit), virt.Addr(r.IDT))
	}
	if r.GDT != 0 && (byTable < 0 || byTask >= 0 && byTable != byTask) {
		w.note(cpu, "GDTR", Certain, fmt.Sprintf("processor %d uses a descriptor table at %#x, which is not its own", cpu, r.GDT),
			"the processor's gdt_page, or its mapping in the entry area", fmt.Sprintf("%#x", r.GDT), virt.Addr(r.GDT))
	}
	if byTable >= 0 && r.GDTLimit != 0 && r.GDTLimit != gdtLimit {
		w.note(cpu, "limit of GDTR", Certain, fmt.Sprintf("the descriptor table of processor %d has a limit of %#x", cpu, r.GDTLimit),
			fmt.Sprintf("%#x", gdtLimit), fmt.Sprintf("%#x", r.GDTLimit), virt.Addr(r.GDT))
	}
	if r.TR != 0 && byTask < 0 {
		w.note(cpu, "TR", Certain, fmt.Sprintf("processor %d uses a task state segment at %#x, which is not the kernel's", cpu, r.TR),
			"the processor's cpu_tss_rw in the entry area", fmt.Sprintf("%#x", r.TR), virt.Addr(r.TR))
	}
	w.protections(cpu, r)
	w.mapped(cpu, r)
	if known {
		w.breakpoints(ctx, cpu, r)
	}
	w.running(r, cpu)
	if !known {
		return -1
	}
	return cpu
}

// Limits of tables that Linux loads.
const (
	gdtLimit = 16*8 - 1
	idtLimit = 256*16 - 1
	anyLimit = 0xffff
)

// protections judges what a kernel switches on once and for all.
func (w *registerWalk) protections(cpu int, r vm.Registers) {
	off := func(name, what string, value uint64) {
		f := w.note(cpu, name, Certain, fmt.Sprintf("processor %d runs without %s: %s", cpu, name, what), name+" set, as the kernel left it", fmt.Sprintf("%#x", value), 0)
		f.Evidence = []Evidence{{Text: fmt.Sprintf("CR0 %#x, CR4 %#x, EFER %#x", r.CR0, r.CR4, r.EFER)}}
		f.Show = "outsight check {} --only processor-state"
	}
	if r.CR0&cr0Write == 0 {
		off("CR0.WP", "the kernel can write what is read-only", r.CR0)
	}
	if missing := w.cr4 &^ r.CR4; missing != 0 {
		switch {
		case missing&cr4SMEP != 0:
			off("CR4.SMEP", "the kernel can execute the memory of programs", r.CR4)
		case missing&cr4SMAP != 0:
			off("CR4.SMAP", "the kernel can use the memory of programs without saying so", r.CR4)
		default:
			off("bits of CR4", fmt.Sprintf("the kernel pinned %#x", missing), r.CR4)
		}
	}
	if r.EFER != 0 && w.nx && r.EFER&eferNX == 0 {
		off("EFER.NXE", "all memory is executable", r.EFER)
	}
	if r.EFER != 0 && r.EFER&eferSyscall == 0 {
		off("EFER.SCE", "the instruction for system calls is invalid", r.EFER)
	}
}

// mapped judges whether the page tables that a processor uses have the kernel's text where the
// kernel's own have it: nobody who reads memory by those would see another. The half of a pair that
// programs use has no more than the entry text.
func (w *registerWalk) mapped(cpu int, r vm.Registers) {
	const large, small = 2 << 20, 4 << 10
	space := w.linux.Space.WithRoot(virt.Root(r.CR3, false))
	if space.Root() == w.linux.Space.Root() {
		return
	}
	for at := w.text.start; at < w.text.end; {
		own, err := w.linux.Space.Translate(at)
		if err != nil {
			return // kernel-text reports it
		}
		page, err := space.Translate(at)
		switch {
		case err != nil:
			at = at&^(large-1) + large
		case page.PA != own.PA:
			f := w.note(cpu, "CR3", Certain, fmt.Sprintf("the page tables of processor %d have other memory for the kernel's text at %#x", cpu, uint64(at)),
				fmt.Sprintf("%#x, as in the kernel's own page tables", uint64(own.PA)), fmt.Sprintf("%#x", uint64(page.PA)), at)
			f.Evidence = append(f.Evidence, Evidence{Text: fmt.Sprintf("CR3 %#x", r.CR3)})
			return
		case page.Size >= large && own.Size >= large:
			at = at&^(large-1) + large
		default:
			at = at&^(small-1) + small
		}
	}
}

// breakpoints judges the debug registers: the kernel keeps what it set in them for each processor,
// for perf, ptrace and kgdb alike. Those of a task that has just left are still known to perf.
func (w *registerWalk) breakpoints(ctx context.Context, cpu int, r vm.Registers) {
	const enabled, detect = 0xff, 1 << 13
	if !r.HasDebug || r.Debug[7]&(enabled|detect) == 0 {
		return
	}
	control, err1 := w.linux.PerCPU("cpu_dr7", cpu)
	addresses, err2 := w.linux.PerCPU("cpu_debugreg", cpu)
	if err1 != nil || err2 != nil {
		return // built without CONFIG_HAVE_HW_BREAKPOINT
	}
	dr7, err := w.linux.Word(control)
	if err != nil {
		return
	}
	var asked map[virt.Addr]bool
	for i := range 4 {
		at := virt.Addr(r.Debug[i])
		if r.Debug[7]>>(2*i)&3 == 0 {
			continue
		}
		if set, err := w.linux.Word(addresses + virt.Addr(8*i)); err != nil || dr7>>(2*i)&3 != 0 && virt.Addr(set) == at {
			continue
		}
		if asked == nil {
			var whole bool
			if asked, whole = watched(ctx, w.linux); !whole {
				return
			}
		}
		if asked[at] {
			continue
		}
		f := w.note(cpu, fmt.Sprintf("DR%d", i), Certain, fmt.Sprintf("processor %d stops at %s, for a breakpoint that the kernel does not know", cpu, w.place(at)),
			"breakpoints of perf, ptrace or kgdb alone", fmt.Sprintf("DR%d %#x, DR7 %#x; the kernel set DR7 to %#x", i, uint64(at), r.Debug[7], dr7), at)
		f.Show = fmt.Sprintf("outsight disassemble {} %#x", uint64(at))
	}
	if r.Debug[7]&detect != 0 {
		w.note(cpu, "DR7.GD", Certain, fmt.Sprintf("processor %d guards its debug registers", cpu), "DR7 without GD, which Linux never sets", fmt.Sprintf("DR7 %#x", r.Debug[7]), control)
	}
}

// watched are the addresses at which perf has breakpoints, of all tasks and processors; whole
// says that all of them could be read.
func watched(ctx context.Context, s *linux.System) (at map[virt.Addr]bool, whole bool) {
	at, whole = map[virt.Addr]bool{}, true
	for e, err := range perf.Events(ctx, s) {
		if err != nil {
			whole = false
		}
		if e != nil && e.Breakpoint != 0 {
			at[e.Breakpoint] = true
		}
	}
	return at, whole
}

// place is an address as code, if it is known.
func (w *registerWalk) place(a virt.Addr) string {
	if owners, err := w.linux.Owners(); err == nil {
		if o := owners.CodeAt(a); o.Symbol != "" {
			return o.Function()
		}
	}
	return fmt.Sprintf("%#x", uint64(a))
}

// running judges what a processor executes in the kernel.
func (w *registerWalk) running(r vm.Registers, cpu int) {
	at := virt.Addr(r.RIP)
	const firmware, firmwareEnd = 0xffff_ffef_0000_0000, 0xffff_ffff_0000_0000 // EFI_VA_END, EFI_VA_START
	if r.CPL != 0 || w.text.holds(at) || !w.linux.Space.KernelHalf(at) || at >= firmware && at < firmwareEnd {
		return
	}
	owners, err := w.linux.Owners()
	if err != nil || owners.CodeAt(at).Kind != linux.OwnerNone {
		return
	}
	page, err := w.linux.Space.Translate(at)
	if err != nil || !page.Executable() {
		return // it has just changed
	}
	b := &branchWalk{s: w.s, owners: owners}
	if b.isThunk(at) || b.isKnown(at) {
		return
	}
	f := w.note(cpu, "RIP", Certain, fmt.Sprintf("processor %d executes code of the kernel's that has no owner, at %#x", cpu, r.RIP),
		"code of the kernel, a module, a BPF program or a trampoline", fmt.Sprintf("RIP %#x", r.RIP), at)
	f.Show = fmt.Sprintf("outsight disassemble {} %#x", r.RIP)
}
