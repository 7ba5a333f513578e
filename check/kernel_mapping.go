package check

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "kernel-mapping",
		Title:     "Page tables that map other kernel memory for one process, or make kernel memory user-accessible",
		Severity:  Critical,
		Technique: "T1014", // Rootkit
		Source:    "the kernel's half of the top page table of every process (mm_struct.pgd) against that of init_mm, mm_struct.context.ldt, and the user bit of every mapping in that half",
		Proves: `A process has page tables of its own for kernel memory, which all processes share: while it runs, its processor executes or reads other memory there than the kernel and every other check see at
that address. Or a page of the kernel's half is mapped as user-accessible, so that programs can read or write it.`,
		Blind: `The second top page table that each process has where page tables are isolated (PTI): programs run by it, and little of the kernel is mapped there. Whether user-accessible kernel memory is mapped there is not checked, so that the finding
is only "likely" with PTI. What a process with an LDT (modify_ldt) has in the two read-only areas that the kernel maps for it under PTI. Page tables that are loaded into CR3 without a process: processor-state compares what processors use
where the monitor shows registers. Kernel memory that is mapped in the user half of a process. Paravirtualized domains of Xen, whose page tables have entries of the hypervisor: there the check is unsupported.`,
		Next: `"outsight translate TARGET ADDRESS" shows by which entries the address is translated for the kernel, and with --pid PID for that process: read both pages, with "outsight read TARGET ADDRESS 4096" and
with --pid PID behind it, and compare them. The process is the one that the change serves, or
the one that it hides from.`,
		Example: `A rootkit gave one process a copy of a page table of the kernel, so that its system calls run other code than those of all other processes:

    $ outsight check lab:demo --only kernel-mapping
    SEVERITY  CONFIDENCE  CHECK           TITLE
    critical  certain     kernel-mapping  process 412 (sshd) has page tables of its own for kernel memory at 0xffffff8000000000
    $ outsight translate lab:demo --pid 412 _text
    $ outsight translate lab:demo _text`,
		Kept: true,
		Run:  kernelMappings,
	})
}

// mappingTables is where a process has its page tables, and its LDT (CONFIG_MODIFY_LDT_SYSCALL).
type mappingTables struct{ mm, pgd, ldt kobj.Field }

const (
	topEntries  = 512
	kernelFirst = topEntries / 2 // of the kernel's half
	// entryCompared are the bits of an entry that must agree: present, writable, user, not executable, and where it leads. Accessed and dirty are the
	// processor's, and the others are free for use by software.
	entryCompared = 1<<63 | 0x000f_ffff_ffff_f000 | 7
	// ldtEntry is the entry by which the kernel maps the LDT of a process where page tables are isolated, for 4 and 5 levels
	// (LDT_PGD_ENTRY, -240 since 4.20), and ldtSize is the size of both areas that it has there (LDT_SLOT_STRIDE).
	ldtEntry = topEntries - 240
	ldtSize  = 2 * 8192 * 8
	// vsyscallPage is where the kernel maps time and getcpu for programs older than the vDSO (VSYSCALL_ADDR).
	vsyscallPage = 0xffff_ffff_ff60_0000
)

func kernelMappings(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		if err := xenPV(s.Linux); err != nil {
			yield(nil, err)
			return
		}
		memory, err := s.kernelMemory()
		if err != nil {
			yield(nil, err)
			return
		}
		for _, r := range memory.user {
			if !yield(userAccessible(r, s.Linux.PTI), nil) {
				return
			}
		}
		o, err := kobj.LayoutOf(s.Linux.Walker, "page tables of processes", func(r *kobj.Resolver, o *mappingTables) {
			o.mm, o.pgd, o.ldt = r.Field("task_struct", "mm"), r.Field("mm_struct", "pgd"), r.Optional("mm_struct", "context.ldt")
		})
		kernel, ok := s.Linux.Address("init_mm")
		if err == nil && !ok {
			err = fmt.Errorf("%w: no symbol init_mm", kobj.ErrUnsupported)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		ts, err := s.Tasks()
		if err != nil {
			yield(nil, err)
			return
		}
		w := &tableWalk{s: s, o: o, kernel: kernel}
		if w.want, err = w.top(s.Linux, kernel); err != nil {
			yield(nil, fmt.Errorf("page tables of the kernel: %w", err))
			return
		}
		for f, err := range w.processes(ctx, ts) {
			if !yield(f, err) {
				return
			}
		}
	}
}

// xenPV is an error in a paravirtualized domain of Xen: the hypervisor has entries 256 to 271 of all top page tables (arch/x86/xen/mmu_pv.c).
func xenPV(s *linux.System) error {
	const pvDomain = 1 // XEN_PV_DOMAIN
	a, ok := s.Address("xen_domain_type")
	if !ok {
		return nil
	}
	if v, err := s.Space.U32(a); err != nil || v != pvDomain {
		return err
	}
	return fmt.Errorf("%w: in a paravirtualized domain of Xen, page tables have entries of the hypervisor", kobj.ErrUnsupported)
}

// tableWalk is one run of the check.
type tableWalk struct {
	s      *Subject
	o      *mappingTables
	kernel virt.Addr // init_mm
	want   []byte    // the kernel's half of the kernel's own top page table
}

// processes judges every mm_struct once, also of kernel threads that use one (kthread_use_mm) and of tasks that exit: the flags that say so
// are one written bit. Only what calls the firmware (efi_mm) has a kernel half that differs.
func (w *tableWalk) processes(ctx context.Context, ts *tasks) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		seen := map[virt.Addr]bool{0: true, w.kernel: true}
		if a, ok := w.s.Linux.Address("efi_mm"); ok {
			seen[a] = true
		}
		for _, n := range slices.SortedFunc(maps.Values(ts.all), func(a, b *task) int { return cmp.Compare(a.pid, b.pid) }) {
			if ctx.Err() != nil {
				return
			}
			f, err := w.process(n, seen)
			if (f != nil || err != nil) && !yield(f, err) {
				return
			}
		}
	}
}

// process judges the mm_struct of a task, unless it is among those seen.
func (w *tableWalk) process(n *task, seen map[virt.Addr]bool) (*Finding, error) {
	r := w.s.Linux.Reader()
	mm := r.Pointer(n.addr, w.o.mm)
	if r.Err != nil {
		now := w.s.Linux.Fresh().Reader()
		if mm = now.Pointer(n.addr, w.o.mm); now.Err != nil {
			return nil, fmt.Errorf("page tables of process %d (%s): %w", n.tgid, n.comm, now.Err)
		}
	}
	if seen[mm] {
		return nil, nil
	}
	seen[mm] = true
	return w.judge(n, mm)
}

// top is the kernel's half of the top page table of an mm_struct.
func (w *tableWalk) top(s *linux.System, mm virt.Addr) ([]byte, error) {
	r := s.Reader()
	pgd := r.Pointer(mm, w.o.pgd)
	if r.Err != nil {
		return nil, r.Err
	}
	b := make([]byte, (topEntries-kernelFirst)*8)
	return b, s.ReadAt(b, pgd+kernelFirst*8)
}

// difference is an entry of the kernel's half that is not the kernel's own.
type difference struct {
	entry     int
	want, got uint64
}

// differs is the first entry of an mm_struct's that is not the kernel's; nil if there is none. An empty one is filled when it is needed.
func (w *tableWalk) differs(s *linux.System, mm virt.Addr) (*difference, error) {
	top, err := w.top(s, mm)
	if err != nil {
		return nil, err
	}
	for i := range topEntries - kernelFirst {
		d := &difference{kernelFirst + i, binary.LittleEndian.Uint64(w.want[8*i:]), binary.LittleEndian.Uint64(top[8*i:])}
		if d.got == 0 || (d.want^d.got)&entryCompared == 0 {
			continue
		}
		if d.entry == ldtEntry && d.want == 0 {
			if is, err := w.mapsLDT(s, mm); is || err != nil {
				return nil, err
			}
		}
		return d, nil
	}
	return nil, nil
}

// address is where the memory of an entry of the top page table begins.
func (w *tableWalk) address(entry int) virt.Addr {
	return virt.Addr(int64(entry-topEntries) << w.shift())
}

func (w *tableWalk) shift() int { return 12 + 9*(w.s.Linux.Space.Levels()-1) }

// mapsLDT reports whether what an mm_struct has in the entry for its LDT is what the kernel maps there: page tables are isolated, the process has an LDT,
// and all that is mapped lies in the two areas for it and can neither be written nor executed, nor used by programs (map_ldt_struct).
func (w *tableWalk) mapsLDT(s *linux.System, mm virt.Addr) (bool, error) {
	if !s.PTI || !w.o.ldt.Present() {
		return false, nil
	}
	r := s.Reader()
	if ldt := r.Pointer(mm, w.o.ldt); r.Err != nil || ldt == 0 {
		return false, r.Err
	}
	space, err := s.UserSpace(mm)
	if err != nil {
		return false, err
	}
	base, only := w.address(ldtEntry), true
	err = space.WalkMappings(base, base+1<<w.shift()-1, func(m virt.Mapping) bool {
		only = m.VA+virt.Addr(m.Size) <= base+ldtSize && !m.Writable() && !m.Executable() && !m.User()
		return only
	})
	if !only {
		return false, nil
	}
	return err == nil, err
}

// judge is a finding if a process has page tables of its own for kernel memory. What is found, or could not be read, is read again while the process is there: its
// page tables may have been freed when they were read.
func (w *tableWalk) judge(n *task, mm virt.Addr) (*Finding, error) {
	if d, err := w.differs(w.s.Linux, mm); d == nil && err == nil {
		return nil, nil
	}
	now := w.s.Linux.Fresh()
	if is, err := w.has(now, n, mm); !is {
		return nil, err
	}
	var err error
	if w.want, err = w.top(now, w.kernel); err != nil {
		return nil, fmt.Errorf("page tables of the kernel: %w", err)
	}
	d, err := w.differs(now, mm)
	if err != nil {
		return nil, fmt.Errorf("page tables of process %d (%s): %w", n.tgid, n.comm, err)
	}
	if d == nil {
		return nil, nil
	}
	if is, err := w.has(w.s.Linux.Fresh(), n, mm); !is {
		return nil, err
	}
	r := now.Reader()
	pgd, at := r.Pointer(mm, w.o.pgd), w.address(d.entry)
	return &Finding{
		Confidence: Certain,
		Title:      fmt.Sprintf("process %d (%s) has page tables of its own for kernel memory at %#x", n.tgid, n.comm, uint64(at)),
		Object:     Object{Kind: "process", Name: n.comm, PID: n.tgid, Addr: at},
		Expected:   fmt.Sprintf("the entry %#x, as in the kernel's own page table and those of all processes", d.want),
		Seen:       fmt.Sprintf("the entry %#x", d.got),
		Evidence: []Evidence{{
			Text: fmt.Sprintf("entry %d of its top page table", d.entry), Addr: pgd + virt.Addr(8*d.entry), Bytes: binary.LittleEndian.AppendUint64(nil, d.got),
		}},
		Basis: "the page tables of the guest's processes, compared with each other",
		Show:  fmt.Sprintf("outsight translate {} --pid %d %#x", n.tgid, uint64(at)), nextAddr: at,
	}, nil
}

// has reports whether a task has an mm_struct.
func (w *tableWalk) has(s *linux.System, n *task, mm virt.Addr) (bool, error) {
	r := s.Reader()
	if is := r.Pointer(n.addr, w.o.mm) == mm; r.Err == nil {
		return is, nil
	}
	return false, fmt.Errorf("page tables of process %d (%s): %w", n.tgid, n.comm, r.Err)
}

// userAccessible is a finding about kernel memory that is mapped as user-accessible. Where page tables are isolated, programs run by others.
func userAccessible(r run, pti bool) *Finding {
	may := "can be read"
	if r.writable {
		may = "can be read and written"
	}
	f := &Finding{
		Confidence: Certain,
		Title:      fmt.Sprintf("%d KiB of kernel memory at %#x %s by programs", (r.end-r.start)>>10, uint64(r.start), may),
		Object:     Object{Kind: "kernel memory", Addr: r.start},
		Aspect:     "user",
		Expected:   "mappings in the kernel's half without the user bit",
		Seen:       fmt.Sprintf("%#x-%#x with the user bit", uint64(r.start), uint64(r.end)),
		Evidence:   []Evidence{{Text: "the memory", Addr: r.start}},
		Basis:      "the guest's page tables",
		Show:       fmt.Sprintf("outsight translate {} %#x", uint64(r.start)),
		nextAddr:   r.start,
	}
	if pti {
		f.Confidence = Likely
		f.Title = fmt.Sprintf("%d KiB of kernel memory at %#x are mapped as user-accessible", (r.end-r.start)>>10, uint64(r.start))
		f.Seen += ", in the page tables that programs do not run by (PTI): they can use it if it is in the others, too"
	}
	return f
}
