package check

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/vm"
)

func init() {
	Register(Check{
		ID:        "processor-state",
		Title:     "Registers of processors that do not agree with the kernel",
		Severity:  Critical,
		Technique: "T1014", // Rootkit
		Source: `the processors' registers as the monitor shows them, or a dump has them: IDTR, GDTR, TR, CR0, CR3, CR4, EFER, DR0 to DR7, RIP; against idt_table, gdt_page, cpu_tss_rw, the
kernel's page tables, boot_cpu_data, cr4_pinned_bits, cpu_dr7, perf's breakpoints and the owners of code`,
		Proves: `A processor works by other tables than those that the kernel keeps (an interrupt table, a descriptor table, a task state segment, a mapping of the kernel's text), or without a
protection that the kernel switched on for good (CR0.WP, SMEP, SMAP, NX), or stops at addresses that nobody asked the kernel for (debug registers), or executes code of no owner. What a kernel's
memory says of itself shows none of these.`,
		Blind: `Machines whose monitor shows no registers: a process without QMP, Firecracker, Cloud Hypervisor, and raw dumps. The model-specific registers of system calls (LSTAR), which no
monitor shows. What was changed and changed back between two looks, as CR0.WP by nearly all rootkits while they patch. While a processor can run guests of its own (CR4.VMXE, EFER.SVME), its registers may be those of
such a guest: what differs then is not reported.`,
		Next: `Dump the guest with its registers ("outsight dump TARGET --format elf -o FILE") before anything else is done to it, and look at what the register leads to with the command shown.`,
		Example: `A module copied the interrupt table, changed the copy, and had one processor use it:

    $ outsight check lab:demo
    SEVERITY  CONFIDENCE  CHECK            TITLE
    critical  certain     processor-state  processor 1 uses an interrupt table at 0xffff888004a1c000, which is not the kernel's
    $ outsight idt lab:demo --where 'cpu == 1'`,
		Steady: true,
		Run:    processorStates,
	})
}

// errNoRegisters says that the machine shows no registers: there is nothing to compare.
var errNoRegisters = errors.New("no registers of its processors are available")

// registerTries is how often registers are read again that contradict memory: neither is of the
// same instant as the other.
const registerTries = 3

func processorStates(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		registers, err := s.registers(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		found, err := judgeRegisters(ctx, s, s.Linux, registers)
		for try := 0; err == nil && len(found) > 0 && !s.Still() && try < registerTries; try++ {
			if registers, err = s.registers(ctx); err != nil {
				break
			}
			var again []*Finding
			again, err = judgeRegisters(ctx, s, s.Linux.Fresh(), registers)
			found = slices.DeleteFunc(again, func(f *Finding) bool {
				return !slices.ContainsFunc(found, func(was *Finding) bool { return was.Object == f.Object && was.Aspect == f.Aspect })
			})
		}
		if err != nil {
			yield(nil, err)
			return
		}
		for _, f := range found {
			if !yield(f, nil) {
				return
			}
		}
	}
}

// registers are those of the machine's processors.
func (s *Subject) registers(ctx context.Context) ([]vm.Registers, error) {
	if s.Machine == nil || s.Machine.Control.Registers == nil {
		return nil, errNoRegisters
	}
	all, err := s.Machine.Control.Registers.Registers(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoRegisters, err)
	}
	if len(all) == 0 {
		return nil, errNoRegisters
	}
	return all, nil
}

// registerWalk compares the registers of all processors with one reading of memory.
type registerWalk struct {
	s      *Subject
	linux  *linux.System           // s.Linux, or the guest as it is now
	tables []hooks.ProcessorTables // of all processors that can be
	online map[int]bool
	idt    []virt.Addr // tables of interrupts that the kernel loads
	text   run
	cr4    uint64 // bits that must be set
	nx     bool
	found  []*Finding
}

// What processors can do or may not leave out.
const (
	cr0Protect, cr0Write, cr0Paging       = 1 << 0, 1 << 16, 1 << 31
	cr4PAE, cr4VMX, cr4SMEP, cr4SMAP      = 1 << 5, 1 << 13, 1 << 20, 1 << 21
	cr4FRED                               = 1 << 32
	eferSyscall, eferLong, eferNX, eferVM = 1 << 0, 1 << 10, 1 << 11, 1 << 12
)

func judgeRegisters(ctx context.Context, s *Subject, l *linux.System, all []vm.Registers) ([]*Finding, error) {
	w := &registerWalk{s: s, linux: l, text: s.between("_stext", "_etext")}
	if err := w.prepare(); err != nil {
		return nil, err
	}
	used, nested, started, named := map[int]bool{}, false, 0, true
	for _, r := range all {
		if r.Partial {
			w.running(r, r.CPU)
			continue
		}
		if r.CR0&cr0Paging == 0 || r.CR4&cr4PAE == 0 || r.EFER != 0 && r.EFER&eferLong == 0 {
			continue // it starts, or was never started
		}
		started++
		named = named && (r.TR != 0 || r.GDT != 0)
		before := len(w.found)
		if cpu := w.processor(ctx, r); cpu >= 0 {
			used[cpu] = true
		}
		if r.CR4&cr4VMX != 0 || r.EFER&eferVM != 0 {
			nested = true
			w.found = w.found[:before]
		}
	}
	// Of an online processor at least one table must be in use, by whichever of the machine's.
	for _, t := range w.tables {
		if started == 0 || nested || !named || !w.online[t.CPU] || used[t.CPU] || len(all) < len(w.online) {
			continue
		}
		w.note(t.CPU, "tables", Likely, "no processor of the machine uses the descriptor tables of processor "+fmt.Sprint(t.CPU)+", which the kernel has online",
			fmt.Sprintf("a GDTR that leads to %#x, or a TR that leads to %#x", uint64(t.GDT), uint64(t.TSS)), "others", t.GDT)
	}
	return w.found, nil
}

// prepare reads what all processors are compared with.
func (w *registerWalk) prepare() error {
	if err := w.linux.Prefetch("__cpu_online_mask", "gdt_page", "cpu_tss_rw", "idt_table", "debug_idt_table", "boot_cpu_data", "cr4_pinned_bits", "cpu_dr7", "cpu_debugreg"); err != nil {
		return err
	}
	var err error
	if w.online, err = hooks.OnlineProcessors(w.linux); err != nil {
		return err
	}
	for cpu := range w.linux.CPUAreas {
		t, err := hooks.TablesOf(w.linux, cpu)
		if err != nil {
			return err
		}
		w.tables = append(w.tables, t)
	}
	for _, name := range []string{"idt_table", "debug_idt_table"} { // the second one up to 5.7
		if a, ok := w.linux.Address(name); ok {
			w.idt = append(w.idt, a)
		}
	}
	if a, ok := w.linux.Address("cr4_pinned_bits"); ok { // since 5.3
		if w.cr4, err = w.linux.Word(a); err != nil {
			return fmt.Errorf("cr4_pinned_bits: %w", err)
		}
	}
	// Words 1 and 9 of the processor's features (arch/x86/include/asm/cpufeatures.h).
	const featureNX, featureSMEP, featureSMAP = 1*32 + 20, 9*32 + 7, 9*32 + 20
	o, err := kobj.LayoutOf(w.linux.Walker, "features of processors", func(r *kobj.Resolver, o *struct{ features kobj.Field }) {
		o.features = r.Field("cpuinfo_x86", "x86_capability")
	})
	a, ok := w.linux.Address("boot_cpu_data")
	if !ok || err != nil {
		return nil //nolint:nilerr // what the processor can is unknown: what is pinned is
	}
	r := w.linux.Reader()
	has := func(n virt.Addr) bool { return r.U32(o.features.At(a)+n/32*4)>>(n%32)&1 != 0 }
	w.nx = has(featureNX)
	if has(featureSMEP) {
		w.cr4 |= cr4SMEP
	}
	if has(featureSMAP) {
		w.cr4 |= cr4SMAP
	}
	return r.Err
}

// note adds a finding about a processor.
func (w *registerWalk) note(cpu int, aspect string, c Confidence, title, expected, seen string, at virt.Addr) *Finding {
	f := &Finding{
		Confidence: c, Title: title, Aspect: aspect, Expected: expected, Seen: seen,
		Object:   Object{Kind: "processor", Name: fmt.Sprint(cpu)},
		Evidence: []Evidence{{Text: "what the register leads to", Addr: at, Bytes: codeAt(w.s, uint64(at))}},
		Basis:    "the processor's registers, by the monitor or the dump, against the kernel's memory",
		Show:     fmt.Sprintf("outsight read {} %#x 64", uint64(at)),
	}
	w.found = append(w.found, f)
	return f
}
