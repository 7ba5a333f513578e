// Package virt is virtual address spaces: it walks a guest's page tables and
// reads through them.
//
// A [Space] is one address space of an amd64 guest, with 4-level or 5-level
// (LA57) paging. It holds no state of the guest but the root's address, so it
// stays right while the guest changes its tables. The kernel's own space can
// carry a fast path for the direct map, the linear window on all of RAM: each
// 2 MiB of it is checked against the page tables when first used, and only then
// believed.
package virt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/outsight-vmi/outsight/phys"
)

// Addr is a virtual address.
type Addr uint64

func (a Addr) String() string { return fmt.Sprintf("%#x", uint64(a)) }

// Levels of page tables on amd64.
const (
	Levels4 = 4 // 48-bit addresses
	Levels5 = 5 // 57-bit addresses, CR4.LA57
)

const (
	pageShift  = 12
	tableShift = 9
	tableSize  = 4096
	// addrMask selects the physical address in a page-table entry: bits 51..12.
	addrMask = 0x000f_ffff_ffff_f000
)

// Bits of a page-table entry.
const (
	bitPresent  = 1 << 0
	bitWritable = 1 << 1
	bitUser     = 1 << 2
	bitAccessed = 1 << 5
	bitDirty    = 1 << 6
	bitLarge    = 1 << 7 // in a PUD or PMD entry: this is a leaf
	// bitProtNone is Linux's _PAGE_PROTNONE: the global bit of an entry that is
	// not present means that the page is there but must not be touched.
	bitProtNone = 1 << 8
	bitNX       = 1 << 63
)

// Page says where a virtual address leads.
type Page struct {
	PA    phys.Addr // of the very byte that was asked for
	Size  uint64    // of the page that holds it, in bytes: 4 KiB, 2 MiB or 1 GiB
	Entry uint64    // the leaf entry as found; its physical address is inverted if !Present
}

// Writable reports whether the leaf entry allows writes.
func (p Page) Writable() bool { return p.Entry&bitWritable != 0 }

// User reports whether the leaf entry allows access from user mode.
func (p Page) User() bool { return p.Entry&bitUser != 0 }

// Executable reports whether the leaf entry allows execution.
func (p Page) Executable() bool { return p.Entry&bitNX == 0 }

// Dirty reports whether the page was written to since the bit was cleared.
func (p Page) Dirty() bool { return p.Entry&bitDirty != 0 }

// Accessed reports whether the page was used since the bit was cleared.
func (p Page) Accessed() bool { return p.Entry&bitAccessed != 0 }

// Present is false for a page that Linux keeps in memory but made untouchable
// (PROT_NONE, or marked for NUMA balancing).
func (p Page) Present() bool { return p.Entry&bitPresent != 0 }

// rest is how many bytes of the page follow PA, PA included.
func (p Page) rest() uint64 { return p.Size - uint64(p.PA)&(p.Size-1) }

// Space is one virtual address space. It is safe for concurrent use.
type Space struct {
	mem    phys.Memory
	mapper phys.Mapper // nil if mem has none
	words  phys.Worder // nil if mem has none
	root   phys.Addr
	levels int
	direct *directMap // nil without a fast path
}

// New returns the address space whose top-level page table is at root, with 4 or
// 5 levels. See [Root] for what a CR3 holds beside the root's address.
func New(mem phys.Memory, root phys.Addr, levels int) *Space {
	s := &Space{mem: mem, root: root, levels: levels}
	s.mapper, _ = phys.As[phys.Mapper](mem)
	s.words, _ = phys.As[phys.Worder](mem)
	return s
}

// Root takes a CR3 value apart: bits 11..0 are the PCID (or cache bits), bit 63
// says "do not flush", and with page-table isolation bit 12 distinguishes the user's half
// of a pair of roots from the kernel's (Linux, arch/x86/entry/calling.h). The
// kernel's half is returned: it maps everything that the user's half does.
func Root(cr3 uint64, pti bool) phys.Addr {
	root := cr3 & addrMask
	if pti {
		root &^= 1 << 12
	}
	return phys.Addr(root)
}

// Memory is the guest-physical memory below s.
func (s *Space) Memory() phys.Memory { return s.mem }

// Root is the guest-physical address of the top-level page table.
func (s *Space) Root() phys.Addr { return s.root }

// Levels is 4 or 5.
func (s *Space) Levels() int { return s.levels }

// WithRoot is the same kind of space from another root: another process of the
// same guest. The kernel's half is shared by all of them, and so is the fast path.
func (s *Space) WithRoot(root phys.Addr) *Space {
	c := *s
	c.root = root
	return &c
}

// Over is the same address space in other memory: the same guest at another time. What
// is known of the direct map is not believed of it, but verified again at its first use.
func (s *Space) Over(mem phys.Memory) *Space {
	c := New(mem, s.root, s.levels)
	if s.direct != nil {
		c.direct = newDirectMap(s.direct.base, s.direct.size, mem)
	}
	return c
}

// Fresh is the same address space, read again from the source for what is kept of it
// (package phys/look): for somebody who found that what was read contradicts itself. Where
// nothing is kept it is s.
func (s *Space) Fresh() *Space {
	kept, ok := phys.As[phys.Refresher](s.mem)
	if !ok {
		return s
	}
	c := *s
	c.mem = kept.Fresh()
	c.mapper, _ = phys.As[phys.Mapper](c.mem)
	c.words, _ = phys.As[phys.Worder](c.mem)
	return &c
}

// Live is the same address space in the memory below what is kept of it (package
// phys/look): in the guest as it is now. Where nothing is kept it is s.
func (s *Space) Live() *Space {
	w, ok := s.mem.(phys.Wrapper)
	if _, kept := s.mem.(phys.Refresher); !ok || !kept {
		return s
	}
	c := New(w.Unwrap(), s.root, s.levels)
	c.direct = s.direct
	return c
}

// Canonical reports whether the bits above the translated ones repeat the
// topmost translated bit, as the processor demands.
func (s *Space) Canonical(va Addr) bool {
	shift := 64 - (pageShift + tableShift*s.levels)
	return Addr(int64(va)<<shift>>shift) == va
}

// KernelHalf reports whether va is a canonical address of the upper half.
func (s *Space) KernelHalf(va Addr) bool { return int64(va) < 0 && s.Canonical(va) }

// UserEnd is the last address of the lower half, which belongs to processes.
func (s *Space) UserEnd() Addr { return 1<<(pageShift+tableShift*s.levels-1) - 1 }

// Translate walks the page tables for va. The error is a *[Fault]. It does not
// take the fast path for the direct map, and so reports the entry as it is now.
func (s *Space) Translate(va Addr) (p Page, err error) {
	defer guard(debug.SetPanicOnFault(true), va, &err)
	return s.walk(va)
}

// guard is the deferred half of every exported method that looks at memory which may
// be mapped (see [phys.Recover]): nothing above virt has to expect a fault. Methods that
// are not exported rely on it.
func guard(was bool, va Addr, err *error) {
	r := recover()
	debug.SetPanicOnFault(was)
	if r != nil {
		*err = &Fault{VA: va, Kind: Unreadable, Err: phys.Faulted(r)}
	}
}

// locate is where va leads, by the fast path or the page tables, and how many
// bytes follow it in its page.
func (s *Space) locate(va Addr) (pa phys.Addr, rest uint64, err error) {
	if d := s.direct; d != nil {
		if pa, ok := d.lookup(s, va); ok {
			return pa, tableSize - uint64(pa)%tableSize, nil
		}
	}
	page, err := s.walk(va)
	return page.PA, page.rest(), err
}

func (s *Space) walk(va Addr) (Page, error) {
	if !s.Canonical(va) {
		return Page{}, &Fault{VA: va, Kind: NonCanonical}
	}
	table := s.root
	for level := s.levels; ; level-- {
		shift := pageShift + tableShift*(level-1)
		entryPA := table + phys.Addr(uint64(va)>>shift&0x1ff)*8
		e, err := s.pte(entryPA)
		if err != nil {
			return Page{}, &Fault{VA: va, Level: level, Kind: Unreadable, Err: err}
		}
		if e&bitPresent == 0 {
			return s.absent(va, level, e)
		}
		if level == 1 || level <= 3 && e&bitLarge != 0 {
			size := uint64(1) << shift
			base := e & addrMask &^ (size - 1)
			return Page{PA: phys.Addr(base | uint64(va)&(size-1)), Size: size, Entry: e}, nil
		}
		table = phys.Addr(e & addrMask)
	}
}

// absent makes sense of an entry that the processor takes as not present.
func (s *Space) absent(va Addr, level int, e uint64) (Page, error) {
	leaf := level == 1 || level <= 3 && e&bitLarge != 0
	switch {
	case e == 0:
		return Page{}, &Fault{VA: va, Level: level, Kind: NotPresent}
	case leaf && (e&bitProtNone != 0 || level > 1 && e&bitLarge != 0):
		// Of a large page, the size bit alone says present: it is being split
		// (pmd_present).
		// Since the L1TF mitigation (4.19) the address in such an entry is
		// inverted, so that speculation cannot follow it.
		size := uint64(1) << (pageShift + tableShift*(level-1))
		base := ^e & addrMask &^ (size - 1)
		return Page{PA: phys.Addr(base | uint64(va)&(size-1)), Size: size, Entry: e}, nil
	case level <= 2:
		f := &Fault{VA: va, Level: level, Entry: e, Kind: Swapped}
		if area, _ := f.Swap(); area >= specialArea {
			f.Kind = Special
		}
		return Page{}, f
	default:
		return Page{}, &Fault{VA: va, Level: level, Entry: e, Kind: NotPresent}
	}
}

// scratch lends the eight bytes that a read through an interface would otherwise
// move to the heap.
var scratch = sync.Pool{New: func() any { return new([8]byte) }}

// pte reads one page-table entry.
func (s *Space) pte(pa phys.Addr) (uint64, error) {
	if s.words != nil {
		return s.words.Word(pa)
	}
	return s.entry(pa)
}

// entry reads one word.
func (s *Space) entry(pa phys.Addr) (uint64, error) {
	if s.mapper != nil {
		if b, ok := s.mapper.Map(pa, 8); ok {
			return binary.LittleEndian.Uint64(b), nil
		}
	}
	return s.copied(pa)
}

// copied reads one word that cannot be seen in place. It is apart from entry for the
// sake of those that can.
func (s *Space) copied(pa phys.Addr) (uint64, error) {
	buf := scratch.Get().(*[8]byte)
	defer scratch.Put(buf)
	if _, err := s.mem.ReadAt(buf[:], pa); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(buf[:]), nil
}

// ReadAt fills p from virtual address va, page by page. n < len(p) implies an
// error: a *[Fault], or what the memory below said.
func (s *Space) ReadAt(p []byte, va Addr) (n int, err error) {
	defer guard(debug.SetPanicOnFault(true), va, &err)
	return s.readAt(p, va)
}

func (s *Space) readAt(p []byte, va Addr) (n int, err error) {
	for n < len(p) {
		at := va + Addr(n)
		if at < va {
			return n, &Fault{VA: va, Kind: NonCanonical}
		}
		pa, rest, err := s.locate(at)
		if err != nil {
			return n, err
		}
		k := min(uint64(len(p)-n), rest)
		if _, err := s.mem.ReadAt(p[n:n+int(k)], pa); err != nil {
			return n, &Fault{VA: at, Kind: Unreadable, Err: err}
		}
		n += int(k)
	}
	return n, nil
}

// U64 reads a little-endian 64-bit word.
func (s *Space) U64(va Addr) (v uint64, err error) {
	defer guard(debug.SetPanicOnFault(true), va, &err)
	// What nearly all reads are, by hand: an object in a part of the direct map that is
	// verified.
	if d := s.direct; d != nil && s.mapper != nil {
		if pa, ok := d.near(va, 8); ok {
			if b, ok := s.mapper.Map(pa, 8); ok {
				return binary.LittleEndian.Uint64(b), nil
			}
		}
	}
	return s.u64(va)
}

func (s *Space) u64(va Addr) (uint64, error) {
	pa, rest, err := s.locate(va)
	if err != nil {
		return 0, err
	}
	if rest < 8 {
		return s.word(va, 8)
	}
	v, err := s.entry(pa)
	if err != nil {
		return 0, &Fault{VA: va, Kind: Unreadable, Err: err}
	}
	return v, nil
}

// U32 reads a little-endian 32-bit word.
func (s *Space) U32(va Addr) (v uint32, err error) {
	defer guard(debug.SetPanicOnFault(true), va, &err)
	if d := s.direct; d != nil && s.mapper != nil {
		if pa, ok := d.near(va, 4); ok {
			if b, ok := s.mapper.Map(pa, 4); ok {
				return binary.LittleEndian.Uint32(b), nil
			}
		}
	}
	return s.u32(va)
}

func (s *Space) u32(va Addr) (uint32, error) {
	pa, rest, err := s.locate(va)
	if err != nil {
		return 0, err
	}
	if s.mapper != nil && rest >= 4 {
		if b, ok := s.mapper.Map(pa, 4); ok {
			return binary.LittleEndian.Uint32(b), nil
		}
	}
	v, err := s.word(va, 4)
	return uint32(v), err
}

// word reads n bytes, up to 8, that may lie in two pages.
func (s *Space) word(va Addr, n int) (uint64, error) {
	buf := scratch.Get().(*[8]byte)
	defer scratch.Put(buf)
	clear(buf[n:])
	if _, err := s.readAt(buf[:n], va); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(buf[:]), nil
}

// FaultKind says why an address is not mapped.
type FaultKind uint8

// The kinds of fault.
const (
	NonCanonical FaultKind = iota // not an address at all
	NotPresent                    // never mapped, or unmapped
	Swapped                       // the page is on a swap device
	Special                       // under migration, poisoned, or a marker: look again
	Unreadable                    // a page table, or the page itself, is not in guest memory
)

// specialArea is the first of the 32 swap areas that are not devices but kinds of
// special entries (MAX_SWAPFILES, include/linux/swap.h: 23 to 28, by version).
const specialArea = 23

// Fault is the error of an address that cannot be read.
type Fault struct {
	VA    Addr
	Level int    // of the entry that stopped the walk: 1 is a PTE; 0 if none did
	Entry uint64 // that entry
	Kind  FaultKind
	Err   error // what the memory below said, for Unreadable
}

func (f *Fault) Error() string {
	switch f.Kind {
	case NonCanonical:
		return fmt.Sprintf("virtual address %#x is not canonical", uint64(f.VA))
	case Swapped:
		typ, off := f.Swap()
		return fmt.Sprintf("virtual address %#x is swapped out (area %d, page %#x)", uint64(f.VA), typ, off)
	case Special:
		return fmt.Sprintf("virtual address %#x is not in place just now (entry %#x)", uint64(f.VA), f.Entry)
	case Unreadable:
		return fmt.Sprintf("virtual address %#x: %v", uint64(f.VA), f.Err)
	default:
		return fmt.Sprintf("virtual address %#x is not mapped (level %d entry %#x)", uint64(f.VA), f.Level, f.Entry)
	}
}

func (f *Fault) Unwrap() error { return f.Err }

// Swap is the swap area and the page in it of a Swapped fault. Linux on amd64
// keeps the area in bits 63..59 and the inverted page number below
// (arch/x86/include/asm/pgtable_64.h, since 4.19).
func (f *Fault) Swap() (area uint8, page uint64) {
	return uint8(f.Entry >> 59), ^f.Entry << 5 >> 14
}

// IsFault reports whether err is a fault of kind k.
func IsFault(err error, k FaultKind) bool {
	var f *Fault
	return errors.As(err, &f) && f.Kind == k
}
