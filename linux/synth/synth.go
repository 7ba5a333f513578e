// Package synth is synthetic Linux guests for tests: guest-physical memory in
// which a small but complete kernel image lies (banner, symbol table, type
// information, page tables) with processes in it. A guest takes a few megabytes
// and a few milliseconds, and everything in it can be overwritten, so that hostile
// guests are as easy to make as healthy ones.
//
// The structures have the members that outsight reads, at offsets of no real
// kernel; two generations of them (see [Options.Old]) cover what was renamed and
// moved over the years.
package synth

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/synth"
)

// Virtual addresses that amd64 Linux fixes at build time.
const (
	ImageBase   = 0xffff_ffff_8000_0000 // __START_KERNEL_map
	LinkText    = ImageBase + 0x100_0000
	DirectBase4 = 0xffff_8880_0000_0000 // of the direct map with 4 levels
	DirectBase5 = 0xff11_0000_0000_0000 // and with 5
)

// Options describe a guest. The zero value is a good one.
type Options struct {
	Layout     Layout    // of the symbol table
	Old        bool      // structures as of about 5.10, else as of about 7
	Levels     int       // of page tables: 4 (also 0) or 5
	Offset     uint64    // KASLR: how far the kernel is from LinkText, a multiple of 2 MiB
	TextPA     phys.Addr // where the kernel lies, a multiple of 2 MiB; 0: 16 MiB
	RAM        uint64    // in bytes; 0: 64 MiB
	Low        uint64    // of that, below the PCI hole; the rest is at 4 GiB. 0: no hole
	DirectBase uint64    // of the direct map; 0: where it is without KASLR
	Release    string    // as uname -r; empty: "6.1.0-synth"
	BuildID    []byte    // nil: twenty bytes derived from Release
	Filler     int       // symbols beside those that matter; 0: 4600
	CPUs       int       // 0: 2
	PTI        bool
	Boot, Now  time.Time // of the guest's clock; zero: 2026-01-02 03:04:05, ten minutes before Now
	State      uint32    // system_state; 0: SYSTEM_RUNNING
	// Displaced puts other data before the banner, so that the read-only data does
	// not begin with it.
	Displaced bool
	// FunctionsOnly names no variables in the symbol table, as a kernel without
	// CONFIG_KALLSYMS_ALL.
	FunctionsOnly bool
	// NoTypes leaves the type information out.
	NoTypes bool
	// ExtraMember shifts the members of task_struct by eight bytes: another build
	// with the same banner.
	ExtraMember bool
	// Memory is where to build; nil: memory of its own. RAM and Low still say
	// what the kernel believes to have.
	Memory *synth.Memory
}

// Guest is a synthetic guest.
type Guest struct {
	Options
	Memory *synth.Memory
	Text   uint64            // virtual address of _text
	Root   phys.Addr         // of the kernel's page tables, what CR3 holds
	Tasks  map[int32]uint64  // task_struct by PID, 0 included
	Groups map[string]uint64 // css_set by path of the control group
	Mounts []uint64          // struct mount: the root's first

	types   *types
	symbols map[string]int64 // from _text
	free    phys.Addr        // where the next object goes
	end     phys.Addr        // of the memory that objects may take
	areas   []uint64         // per-CPU areas
	shared  map[string]uint64
}

// New builds the guest that o describes. It panics when o is invalid: it is
// for tests.
func New(o Options) *Guest {
	o = o.withDefaults()
	g := &Guest{
		Options: o, Memory: o.Memory, Text: LinkText + o.Offset,
		Tasks: map[int32]uint64{}, Groups: map[string]uint64{}, shared: map[string]uint64{},
		types: newTypes(o), symbols: map[string]int64{},
	}
	if g.Memory == nil {
		g.Memory = synth.New(o.ranges()...)
	}
	g.buildImage()
	g.buildTables()
	g.buildVariables()
	g.buildFiles()
	g.buildInit()
	return g
}

func (o Options) withDefaults() Options {
	set := func(p *uint64, v uint64) {
		if *p == 0 {
			*p = v
		}
	}
	set(&o.RAM, 64<<20)
	set((*uint64)(&o.TextPA), 16<<20)
	if o.Levels == 0 {
		o.Levels = 4
	}
	set(&o.DirectBase, map[int]uint64{4: DirectBase4, 5: DirectBase5}[o.Levels])
	if o.Release == "" {
		o.Release = "6.1.0-synth"
	}
	if o.BuildID == nil {
		o.BuildID = fmt.Appendf(nil, "%-20.20s", o.Release)
	}
	if o.Filler == 0 {
		o.Filler = 4600
	}
	if o.CPUs == 0 {
		o.CPUs = 2
	}
	if o.Boot.IsZero() {
		o.Boot = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	}
	if o.Now.IsZero() {
		o.Now = o.Boot.Add(10 * time.Minute)
	}
	if o.State == 0 {
		o.State = 3
	}
	if o.TextPA%(2<<20) != 0 || o.Offset%(2<<20) != 0 {
		panic("the kernel must lie on a boundary of 2 MiB")
	}
	return o
}

// ranges is the RAM of the guest.
func (o Options) ranges() []phys.Range {
	if o.Low == 0 || o.Low >= o.RAM {
		return []phys.Range{{End: phys.Addr(o.RAM)}}
	}
	return []phys.Range{{End: phys.Addr(o.Low)}, {Start: 4 << 30, End: 4<<30 + phys.Addr(o.RAM-o.Low)}}
}

// Banner is what /proc/version shows.
func (o Options) Banner() string {
	o = o.withDefaults()
	return "Linux version " + o.Release + " (synth@example) (gcc 14) #1 SMP PREEMPT_DYNAMIC"
}

// Address is where a symbol of the kernel lies.
func (g *Guest) Address(name string) uint64 {
	rel, ok := g.symbols[name]
	if !ok {
		panic("no symbol " + name)
	}
	return g.Text + uint64(rel)
}

// Phys is the guest-physical address behind an address of the kernel image or of
// the direct map.
func (g *Guest) Phys(va uint64) phys.Addr {
	if va >= ImageBase {
		return g.TextPA + phys.Addr(va-g.Text)
	}
	return phys.Addr(va - g.DirectBase)
}

// Direct is where the direct map shows a guest-physical address.
func (g *Guest) Direct(pa phys.Addr) uint64 { return g.DirectBase + uint64(pa) }

// Alloc takes n bytes of zeros, on a boundary of align, for an object, and
// returns their address in the direct map.
func (g *Guest) Alloc(n, align uint64) uint64 {
	at := (g.free + phys.Addr(align-1)) &^ phys.Addr(align-1)
	g.free = at + phys.Addr(n)
	if g.free > g.end {
		panic("the guest's memory is used up: give it more RAM")
	}
	g.Memory.Bytes(at, make([]byte, n)...) // so that its pages exist
	return g.Direct(at)
}

// Object takes memory for a structure.
func (g *Guest) Object(structure string) uint64 {
	return g.Alloc(uint64(g.types.size(structure)), 64)
}

// CString puts text into memory, followed by a zero byte.
func (g *Guest) CString(s string) uint64 {
	a := g.Alloc(uint64(len(s))+1, 8)
	g.Memory.CString(g.Phys(a), s)
	return a
}

// Member is where a member lies: "task_struct", "se.sum_exec_runtime".
func (g *Guest) Member(structure, path string) uint64 {
	off, _ := g.types.member(structure, path)
	return uint64(off)
}

// Size is the size of a structure in bytes.
func (g *Guest) Size(structure string) uint64 { return uint64(g.types.size(structure)) }

// Set writes a member of the structure at a.
func (g *Guest) Set(a uint64, structure, path string, v uint64) {
	off, size := g.types.member(structure, path)
	b := binary.LittleEndian.AppendUint64(nil, v)
	g.Memory.Bytes(g.Phys(a+uint64(off)), b[:min(size, 8)]...)
}

// Get reads a member, of at most eight bytes, of the structure at a.
func (g *Guest) Get(a uint64, structure, path string) uint64 {
	off, size := g.types.member(structure, path)
	var b [8]byte
	if _, err := g.Memory.ReadAt(b[:min(size, 8)], g.Phys(a+uint64(off))); err != nil {
		panic(err)
	}
	return binary.LittleEndian.Uint64(b[:])
}

// Put64 writes a word at a kernel address.
func (g *Guest) Put64(va, v uint64) { g.Memory.Uint64(g.Phys(va), v) }

// Put writes bytes at a kernel address.
func (g *Guest) Put(va uint64, b []byte) { g.Memory.Bytes(g.Phys(va), b...) }

// Raw writes the guest's memory to f, a sparse file without headers, as layout l
// places it; a zero layout stands for one without a hole.
func (g *Guest) Raw(f *os.File, l phys.Layout) error {
	if len(l.Segments) == 0 {
		rs := g.ranges()
		l = phys.Identity(uint64(rs[len(rs)-1].End))
	}
	buf := make([]byte, phys.PageSize)
	for _, s := range l.Segments {
		if st, err := f.Stat(); err != nil || st.Size() < int64(s.Offset+s.Size) {
			if err := f.Truncate(int64(s.Offset + s.Size)); err != nil {
				return err
			}
		}
		for r, ok := g.Memory.NextPopulated(s.Start); ok && r.Start < s.Range().End; r, ok = g.Memory.NextPopulated(r.End) {
			for at := r.Start; at < min(r.End, s.Range().End); at += phys.PageSize {
				if _, err := g.Memory.ReadAt(buf, at); err != nil {
					return err
				}
				if _, err := f.WriteAt(buf[:min(phys.PageSize, uint64(s.Range().End-at))], int64(s.Offset+uint64(at-s.Start))); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
