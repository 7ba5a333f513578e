package hooks

import (
	"encoding/binary"
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Segment is one 8-byte entry of a global or local descriptor table (Intel SDM volume 3,
// 3.4.5). A system segment of 64-bit mode goes on in the next one.
type Segment struct {
	Index   int
	Address virt.Addr // of the entry
	Raw     uint64
}

// The bits of a descriptor.
const (
	segmentAccessed = 1 << 40 // set by the processor when it loads the segment
	segmentPresent  = 1 << 47
)

// Present reports whether the entry is in use.
func (g Segment) Present() bool { return g.Raw&segmentPresent != 0 }

// System reports whether it is no code or data, but a task state, an LDT or a gate.
func (g Segment) System() bool { return g.Raw>>44&1 == 0 }

// Type is its type, in the bits that System decides the meaning of.
func (g Segment) Type() int { return int(g.Raw >> 40 & 15) }

// DPL is the least privileged ring that may use it.
func (g Segment) DPL() int { return int(g.Raw >> 45 & 3) }

// Code reports whether it is a segment of code.
func (g Segment) Code() bool { return !g.System() && g.Type()&8 != 0 }

// Conforming reports whether code of less privilege runs on in it with its own.
func (g Segment) Conforming() bool { return g.Code() && g.Type()&4 != 0 }

// Value is the entry without what the processor changes in it by itself.
func (g Segment) Value() uint64 {
	if g.System() {
		return g.Raw
	}
	return g.Raw &^ segmentAccessed
}

// Gate reports whether it is a gate: an entry that names code, which a far call goes through.
func (g Segment) Gate() bool {
	switch g.Type() {
	case 4, 5, 6, 7, 0xc, 0xe, 0xf:
		return g.System() && g.Present()
	}
	return false
}

// Kind is its kind in words.
func (g Segment) Kind() string {
	switch {
	case g.Conforming():
		return "conforming code segment"
	case g.Code():
		return "code segment"
	case !g.System():
		return "data segment"
	}
	switch g.Type() {
	case 2:
		return "LDT"
	case 4, 0xc:
		return "call gate"
	case 5:
		return "task gate"
	case 6, 0xe:
		return "interrupt gate"
	case 7, 0xf:
		return "trap gate"
	case 1, 3, 9, 0xb:
		return "task state segment"
	}
	return fmt.Sprintf("system segment of type %#x", g.Type())
}

// base is the address that a system segment names, of which high is the second half.
func (g Segment) base(high uint64) virt.Addr {
	return virt.Addr(g.Raw>>16&0xff_ffff | g.Raw>>56<<24 | high<<32)
}

// ProcessorTables are the descriptors of one processor: those of its global descriptor table, and
// of its task state segment.
type ProcessorTables struct {
	CPU      int
	GDT      virt.Addr // its gdt_page
	Segments []Segment
	// TSS is the struct x86_hw_tss in its cpu_tss_rw, and TSSBase where its descriptor says that
	// this is: 0 for a processor that was never started.
	TSS, TSSBase virt.Addr
	// Stacks are those to which the processor switches: for ring 0, and by the interrupt stack
	// table, from 1. A stack that is not used is 0.
	Stacks [8]virt.Addr
	// Area and AreaEnd are the processor's entry area, if TSSBase leads into one.
	Area, AreaEnd virt.Addr
}

type descriptorLayout struct {
	sp0, ist kobj.Field // of x86_hw_tss
	hardware kobj.Field // of tss_struct
	areaTSS  kobj.Field // of cpu_entry_area
	areaSize uint32
}

const (
	gdtEntries = 16
	gdtTSS     = 8 // GDT_ENTRY_TSS; its second half follows
	istEntries = 7
)

// EntryAreas is where the entry areas of all processors are (CPU_ENTRY_AREA_BASE), and their
// length in bytes at most (a whole entry of the top-level page table).
const (
	EntryAreas     virt.Addr = 0xffff_fe00_0000_0000
	EntryAreasSize           = 1 << 39
)

// TablesOf reads the descriptors of a possible processor.
func TablesOf(s *linux.System, cpu int) (t ProcessorTables, err error) {
	o, err := kobj.LayoutOf(s.Walker, "descriptor tables", func(r *kobj.Resolver, o *descriptorLayout) {
		r.Prefetch("gdt_page", "cpu_tss_rw")
		o.sp0, o.ist = r.Field("x86_hw_tss", "sp0"), r.Field("x86_hw_tss", "ist")
		o.hardware = r.Field("tss_struct", "x86_tss")
		o.areaTSS, o.areaSize = r.Field("cpu_entry_area", "tss"), r.Size("cpu_entry_area")
	})
	if err != nil {
		return t, err
	}
	t.CPU = cpu
	if t.GDT, err = s.PerCPU("gdt_page", cpu); err != nil {
		return t, err
	}
	tss, err := s.PerCPU("cpu_tss_rw", cpu)
	if err != nil {
		return t, err
	}
	t.TSS = o.hardware.At(tss)
	var b [gdtEntries * 8]byte
	if err := s.ReadAt(b[:], t.GDT); err != nil {
		return t, fmt.Errorf("descriptor table of processor %d: %w", cpu, err)
	}
	for i := range gdtEntries {
		t.Segments = append(t.Segments, Segment{Index: i, Address: t.GDT + virt.Addr(8*i), Raw: binary.LittleEndian.Uint64(b[8*i:])})
	}
	t.TSSBase = t.Segments[gdtTSS].base(t.Segments[gdtTSS+1].Raw)
	r := s.Reader()
	t.Stacks[0] = r.Pointer(t.TSS, o.sp0)
	for i := range min(istEntries, int(o.ist.Size/8)) {
		t.Stacks[1+i] = r.Ptr(o.ist.At(t.TSS) + virt.Addr(8*i))
	}
	if r.Err != nil {
		return t, fmt.Errorf("task state segment of processor %d: %w", cpu, r.Err)
	}
	if off := virt.Addr(o.areaTSS.Offset + o.hardware.Offset); t.TSSBase >= EntryAreas+off && t.TSSBase < EntryAreas+EntryAreasSize {
		t.Area = t.TSSBase - off
		t.AreaEnd = t.Area + virt.Addr(o.areaSize)
	}
	return t, nil
}

// IsSystem reports whether the entry number i of the global descriptor table, or the half of one,
// is for a system segment in every Linux: the task state segment and the LDT.
func IsSystem(i int) bool { return i >= gdtTSS && i < gdtTSS+4 }

// LDT reads the local descriptor table of a process (modify_ldt), by its mm_struct: nothing for
// nearly all.
func LDT(s *linux.System, mm virt.Addr) (segments []Segment, err error) {
	o, err := kobj.LayoutOf(s.Walker, "local descriptor tables", func(r *kobj.Resolver, o *struct{ ldt, entries, count kobj.Field }) {
		o.ldt, o.entries, o.count = r.Field("mm_struct", "context.ldt"), r.Field("ldt_struct", "entries"), r.Field("ldt_struct", "nr_entries")
	})
	if err != nil {
		return nil, err
	}
	r := s.Reader()
	ldt := r.Pointer(mm, o.ldt)
	if ldt == 0 || r.Err != nil {
		return nil, r.Err
	}
	const maxEntries = 8192 // LDT_ENTRIES
	at, n := r.Pointer(ldt, o.entries), r.Uint(ldt, o.count)
	if r.Err != nil {
		return nil, r.Err
	}
	if n > maxEntries {
		return nil, fmt.Errorf("local descriptor table at %#x: %w: it has %d entries", uint64(ldt), kobj.ErrBroken, n)
	}
	b := make([]byte, 8*n)
	if err := s.ReadAt(b, at); err != nil {
		return nil, fmt.Errorf("local descriptor table at %#x: %w", uint64(ldt), err)
	}
	for i := range int(n) {
		if raw := binary.LittleEndian.Uint64(b[8*i:]); raw != 0 {
			segments = append(segments, Segment{Index: i, Address: at + virt.Addr(8*i), Raw: raw})
		}
	}
	return segments, nil
}

// SameMemory reports whether two addresses are the same memory, by the kernel's page tables.
func SameMemory(s *linux.System, a, b virt.Addr) (bool, error) {
	p, err := s.Space.Translate(a)
	if err != nil {
		return false, err
	}
	q, err := s.Space.Translate(b)
	return err == nil && p.PA == q.PA, err
}

// OnlineProcessors are the numbers of those that run tasks.
func OnlineProcessors(s *linux.System) (online map[int]bool, err error) {
	mask, err := s.SymbolAddr("__cpu_online_mask")
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(s.CPUMaskSize(), phys.PageSize))
	if err := s.ReadAt(b, mask); err != nil {
		return nil, fmt.Errorf("processors that are online: %w", err)
	}
	online = map[int]bool{}
	for cpu := range min(len(s.CPUAreas), 8*len(b)) {
		if b[cpu/8]>>(cpu%8)&1 != 0 {
			online[cpu] = true
		}
	}
	return online, nil
}
