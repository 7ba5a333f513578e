package synth

import (
	"encoding/binary"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/synth"
)

// Bits of a page-table entry.
const (
	Present  = 1 << 0
	Writable = 1 << 1
	User     = 1 << 2
	Large    = 1 << 7 // a page of 2 MiB or 1 GiB
	ProtNone = 1 << 8 // beside !Present: mapped, but not to be touched
	NX       = 1 << 63
)

const addressBits = 0x000f_ffff_ffff_f000

// Tables is a set of page tables under construction.
type Tables struct {
	Memory *synth.Memory
	Root   phys.Addr
	Levels int              // 4 or 5
	Alloc  func() phys.Addr // a page for another table
}

// Map maps the page of size bytes (4 KiB, 2 MiB or 1 GiB) at va to pa. The entry
// gets flags beside the address, and Large where it must.
func (t Tables) Map(va uint64, pa phys.Addr, size, flags uint64) {
	level := map[uint64]int{4 << 10: 1, 2 << 20: 2, 1 << 30: 3}[size]
	if level > 1 {
		flags |= Large
	}
	t.Memory.Uint64(t.Entry(va, level), uint64(pa)|flags)
}

// Entry is where the entry of a level (1: of a 4 KiB page) for va is, tables
// above it being made where they are missing.
func (t Tables) Entry(va uint64, level int) phys.Addr {
	table := t.Root
	for l := t.Levels; ; l-- {
		at := table + phys.Addr(va>>(12+9*(l-1))&511*8)
		if l == level {
			return at
		}
		var b [8]byte
		_, _ = t.Memory.ReadAt(b[:], at) // memory that does not exist is not mapped
		e := binary.LittleEndian.Uint64(b[:])
		if e&Present == 0 {
			e = uint64(t.Alloc()) | Present | Writable | User
			t.Memory.Uint64(at, e)
		}
		table = phys.Addr(e & addressBits)
	}
}

// page takes a page for a table.
func (g *Guest) page() phys.Addr { return g.Phys(g.Alloc(phys.PageSize, phys.PageSize)) }

// Tables are the page tables whose top level is at root.
func (g *Guest) Tables(root phys.Addr) Tables {
	return Tables{Memory: g.Memory, Root: root, Levels: g.Levels, Alloc: g.page}
}

// buildTables maps the image and all of RAM.
func (g *Guest) buildTables() {
	at := func(name string) phys.Addr { return g.Phys(g.Address(name)) }
	g.Root = at("init_top_pgt")
	entry := func(table phys.Addr, i int, to phys.Addr) {
		g.Memory.Uint64(table+phys.Addr(8*i), uint64(to)|Present|Writable)
	}
	top := at("level3_kernel_pgt")
	if g.Levels == 5 {
		entry(at("level4_kernel_pgt"), 511, top)
		top = at("level4_kernel_pgt")
	}
	entry(g.Root, 511, top)
	entry(at("level3_kernel_pgt"), 510, at("level2_kernel_pgt"))
	const large = 2 << 20
	kernel := g.Tables(g.Root)
	for off := uint64(0); off < imageSize; off += large {
		kernel.Map(g.Text+off, g.TextPA+phys.Addr(off), large, Present|Writable)
	}
	for _, r := range g.ranges() {
		for pa := r.Start; pa < r.End; pa += large {
			if pa > 0 {
				kernel.Map(g.Direct(pa), pa, large, Present|Writable|NX)
				continue
			}
			for p := phys.Addr(0); p < large; p += phys.PageSize { // as kernels map the lowest memory
				kernel.Map(g.Direct(p), p, phys.PageSize, Present|Writable|NX)
			}
		}
	}
}

// UserTables makes page tables for a process: the kernel's half as everywhere,
// nothing in the user's. With page-table isolation the root is the lower of two.
func (g *Guest) UserTables() phys.Addr {
	size := uint64(phys.PageSize)
	if g.PTI {
		size *= 2
	}
	root := g.Phys(g.Alloc(size, size))
	half := make([]byte, phys.PageSize/2)
	if _, err := g.Memory.ReadAt(half, g.Root+phys.PageSize/2); err != nil {
		panic(err)
	}
	g.Memory.Bytes(root+phys.PageSize/2, half...)
	return root
}
