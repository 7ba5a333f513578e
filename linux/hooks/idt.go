package hooks

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// Gate is one entry of the interrupt descriptor table.
type Gate struct {
	Vector  int
	Address virt.Addr // of the gate itself
	Handler virt.Addr // 0 for an empty gate
	Type    string    // interrupt, trap, task, or the number of another type
	DPL     int       // least privileged ring that may call it by an INT instruction
	IST     int       // stack to switch to; 0 none
	Segment uint16
	Present bool
}

// IDT is the interrupt descriptor table that the kernel loads.
type IDT struct {
	Base  virt.Addr // where the processors find it
	Table virt.Addr // the kernel's own variable idt_table
	Limit uint16    // offset of its last byte
	// SameMemory says that Base and Table are the same memory, as they must be.
	SameMemory bool
}

const maxVectors = 256

// IDTDescriptor reads what the kernel loads into the processors' IDT register.
func IDTDescriptor(s *linux.System) (IDT, error) {
	var d IDT
	table, err := s.SymbolAddr("idt_table")
	if err != nil {
		return d, err
	}
	d.Table, d.Base, d.Limit = table, table, maxVectors*16-1
	// Since 4.x the processors see a read-only mapping in the CPU entry area.
	if desc, ok := s.Address("idt_descr"); ok {
		var b [10]byte
		if err := s.ReadAt(b[:], desc); err != nil {
			return d, fmt.Errorf("idt_descr at %#x: %w", uint64(desc), err)
		}
		d.Limit = binary.LittleEndian.Uint16(b[:])
		d.Base = virt.Addr(binary.LittleEndian.Uint64(b[2:]))
	}
	a, err1 := s.Space.Translate(d.Base)
	b, err2 := s.Space.Translate(d.Table)
	if err := cmp.Or(err1, err2); err != nil {
		return d, fmt.Errorf("interrupt descriptor table at %#x: %w", uint64(d.Base), err)
	}
	d.SameMemory = a.PA == b.PA
	return d, nil
}

// Gates yields the gates of the interrupt descriptor table at base, in order of
// vector; IDTDescriptor and the processors' registers hold the bases.
func Gates(_ context.Context, s *linux.System, base virt.Addr, limit uint16) iter.Seq2[*Gate, error] {
	return func(yield func(*Gate, error) bool) {
		b := make([]byte, min((int(limit)+1)/16, maxVectors)*16)
		if err := s.ReadAt(b, base); err != nil {
			yield(nil, fmt.Errorf("interrupt descriptor table at %#x: %w", uint64(base), err))
			return
		}
		for v := range len(b) / 16 {
			g := parseGate(b[16*v:])
			g.Vector, g.Address = v, base+virt.Addr(16*v)
			if !yield(g, nil) {
				return
			}
		}
	}
}

// parseGate reads a 64-bit gate (Intel SDM volume 3, 7.14.1).
func parseGate(b []byte) *Gate {
	bits := binary.LittleEndian.Uint16(b[4:])
	g := &Gate{
		Segment: binary.LittleEndian.Uint16(b[2:]),
		IST:     int(bits & 7), DPL: int(bits >> 13 & 3), Present: bits>>15 != 0,
	}
	g.Handler = virt.Addr(uint64(binary.LittleEndian.Uint16(b)) |
		uint64(binary.LittleEndian.Uint16(b[6:]))<<16 | uint64(binary.LittleEndian.Uint32(b[8:]))<<32)
	switch t := bits >> 8 & 31; t {
	case 14:
		g.Type = "interrupt"
	case 15:
		g.Type = "trap"
	case 5:
		g.Type = "task"
	default:
		g.Type = fmt.Sprintf("%#x", t)
	}
	return g
}
