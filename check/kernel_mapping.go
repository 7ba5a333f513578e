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
		Title:     "Page tables that show a process another kernel, or the kernel's memory to programs",
		Severity:  Critical,
		Technique: "T1014", // Rootkit
		Source:    "the kernel's half of the top page table of every process (mm_struct.pgd) against that of init_mm, and the user bit of every mapping in that half",
		Proves: `A process has page tables of its own for the kernel's memory, which all processes share: while it runs, its processor executes or reads something else there than what the kernel, and every other check, has
at that address. Or a page of the kernel's half can be read or written by programs, which gives whoever knows its address the kernel.`,
		Blind: `The second half of the page tables of a kernel that isolates them (PTI), which programs run by and in which little of the kernel is. Page tables that are put into CR3 without a process: processor-state compares what processors use
where the monitor shows registers. Memory of the kernel that is mapped in the programs' half of a process.`,
		Next: `"outsight translate" shows by which entries an address is translated for that process (--pid) and for the kernel (without): read both pages with "outsight read" and compare them. The process is the one that the change serves, or
that it is to be kept from.`,
		Example: `A rootkit gave one process a copy of a page table of the kernel's, so that it runs other code in its system calls than anybody else:

    $ outsight check lab:demo --only kernel-mapping
    SEVERITY  CONFIDENCE  CHECK           TITLE
    critical  certain     kernel-mapping  process 412 (sshd) has page tables of its own for kernel memory at 0xff00000000000000
    $ outsight translate lab:demo --pid 412 _text
    $ outsight translate lab:demo _text`,
		Kept: true,
		Run:  kernelMappings,
	})
}

// mappingTables is where a process has its page tables.
type mappingTables struct{ mm, pgd kobj.Field }

const (
	topEntries  = 512
	kernelFirst = topEntries / 2 // of the kernel's half
	// entryCompared are the bits of an entry that must agree: present, writable, user, not executable, and where it leads. Accessed and dirty are the
	// processor's, and the others are free for use by software.
	entryCompared = 1<<63 | 0x000f_ffff_ffff_f000 | 7
	// localTables is the entry in which a process has its LDT where page tables are isolated (LDT_PGD_ENTRY, -240).
	localTables = topEntries - 240
	// callPage is where the kernel has time and getcpu for programs of the time before the vDSO (VSYSCALL_ADDR).
	callPage = 0xffff_ffff_ff60_0000
)

func kernelMappings(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		memory, err := s.kernelMemory()
		if err != nil {
			yield(nil, err)
			return
		}
		for _, r := range memory.lent {
			if !yield(lent(r), nil) {
				return
			}
		}
		o, err := kobj.LayoutOf(s.Linux.Walker, "page tables of processes", func(r *kobj.Resolver, o *mappingTables) {
			o.mm, o.pgd = r.Field("task_struct", "mm"), r.Field("mm_struct", "pgd")
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
		seen := map[virt.Addr]bool{kernel: true}
		for _, n := range slices.SortedFunc(maps.Values(ts.all), func(a, b *task) int { return cmp.Compare(a.pid, b.pid) }) {
			if ctx.Err() != nil {
				return
			}
			r := s.Linux.Reader()
			mm := r.Pointer(n.addr, o.mm)
			if r.Err != nil || mm == 0 || seen[mm] || n.flags&(pfKthread|pfExiting) != 0 {
				continue
			}
			seen[mm] = true
			f, err := w.judge(n, mm)
			if (f != nil || err != nil) && !yield(f, err) {
				return
			}
		}
	}
}

// tableWalk is one run of the check.
type tableWalk struct {
	s      *Subject
	o      *mappingTables
	kernel virt.Addr // init_mm
	want   []byte    // the kernel's half of the kernel's own top page table
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

// other is the first entry that is not the kernel's; ok is false if there is none. One that is missing is made when it is needed.
func (w *tableWalk) other(top []byte) (entry int, want, got uint64, ok bool) {
	for i := range topEntries - kernelFirst {
		want, got := binary.LittleEndian.Uint64(w.want[8*i:]), binary.LittleEndian.Uint64(top[8*i:])
		if got == 0 || (want^got)&entryCompared == 0 || want == 0 && kernelFirst+i == localTables {
			continue
		}
		return kernelFirst + i, want, got, true
	}
	return 0, 0, 0, false
}

// judge is a finding if a process has page tables of its own for the kernel's memory. What is found is read again, while the process is there: its
// page tables may have been freed when they were read.
func (w *tableWalk) judge(n *task, mm virt.Addr) (*Finding, error) {
	top, err := w.top(w.s.Linux, mm)
	if err != nil {
		return nil, nil // it ends; who reads tasks reports more
	}
	if _, _, _, ok := w.other(top); !ok {
		return nil, nil
	}
	now := w.s.Linux.Fresh()
	r := now.Reader()
	if r.Pointer(n.addr, w.o.mm) != mm || r.Err != nil {
		return nil, nil
	}
	if w.want, err = w.top(now, w.kernel); err != nil {
		return nil, fmt.Errorf("page tables of the kernel: %w", err)
	}
	if top, err = w.top(now, mm); err != nil {
		return nil, fmt.Errorf("page tables of process %d: %w", n.tgid, err)
	}
	entry, want, got, ok := w.other(top)
	if !ok {
		return nil, nil
	}
	pgd := r.Pointer(mm, w.o.pgd)
	space := w.s.Linux.Space
	at := virt.Addr(int64(entry-topEntries) << (12 + 9*(space.Levels()-1)))
	return &Finding{
		Confidence: Certain,
		Title:      fmt.Sprintf("process %d (%s) has page tables of its own for kernel memory at %#x", n.tgid, n.comm, uint64(at)),
		Object:     Object{Kind: "process", Name: n.comm, PID: n.tgid, Addr: at},
		Expected:   fmt.Sprintf("the entry %#x, as the kernel's own page table has it and all processes do", want),
		Seen:       fmt.Sprintf("the entry %#x", got),
		Evidence:   []Evidence{{Text: fmt.Sprintf("entry %d of its top page table", entry), Addr: pgd + virt.Addr(8*entry), Bytes: binary.LittleEndian.AppendUint64(nil, got)}},
		Basis:      "the page tables of the guest's processes, compared with each other",
		Show:       fmt.Sprintf("outsight translate {} --pid %d %#x", n.tgid, uint64(at)),
	}, nil
}

// lent is a finding about kernel memory that programs can use.
func lent(r run) *Finding {
	may := "read"
	if r.writable {
		may = "read and written"
	}
	return &Finding{
		Confidence: Certain,
		Title:      fmt.Sprintf("%d KiB of kernel memory at %#x can be %s by every program", (r.end-r.start)>>10, uint64(r.start), may),
		Object:     Object{Kind: "kernel memory", Addr: r.start},
		Aspect:     "user",
		Expected:   "mappings in the kernel's half without the user bit",
		Seen:       fmt.Sprintf("%#x-%#x with the user bit", uint64(r.start), uint64(r.end)),
		Evidence:   []Evidence{{Text: "the memory", Addr: r.start}},
		Basis:      "the guest's page tables",
		Show:       fmt.Sprintf("outsight translate {} %#x", uint64(r.start)),
	}
}
