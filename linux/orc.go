package linux

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// orc is what the kernel's build noted of one place in code: how to get from the stack
// there to that of the caller (struct orc_entry).
type orc struct {
	spOffset, bpOffset int64
	spReg, bpReg       orcReg
	kind               orcKind
	signal             bool
}

type orcKind uint8

const (
	orcUndefined orcKind = iota
	orcEnd
	orcCall
	orcRegs    // a whole struct pt_regs lies there
	orcPartial // only what the processor itself pushes
)

// orcReg is a register, or a place, that an orc counts from.
type orcReg uint8

const (
	orcNoReg orcReg = iota // as a stack pointer: none; as a frame pointer: unchanged
	orcPrevSP
	orcBP
	orcSP
	orcBPIndirect
	orcSPIndirect
	orcOtherReg // one that a thread which waits has not kept
)

// orcNumbers are the registers by their numbers in the two known ways. No type shows which
// it is; but most code keeps count of its stack by the stack pointer, so the number that
// most entries have is that.
var orcNumbers = map[uint64][16]orcReg{
	5: {1: orcPrevSP, 2: orcOtherReg, 3: orcOtherReg, 4: orcBP, 5: orcSP, 6: orcOtherReg, 7: orcOtherReg, 8: orcBPIndirect, 9: orcSPIndirect},
	3: {1: orcOtherReg, 2: orcOtherReg, 3: orcSP, 4: orcBP, 5: orcOtherReg, 6: orcOtherReg, 7: orcOtherReg, 8: orcPrevSP, 9: orcSPIndirect, 10: orcBPIndirect}, // seen in 7.2
}

// framePointer is what holds for code without notes of its own, if it keeps frame
// pointers, as compiled BPF does.
var framePointer = orc{spOffset: 16, bpOffset: -16, spReg: orcBP, bpReg: orcPrevSP, kind: orcCall}

type orcLayout struct {
	spOffset, bpOffset, spReg, bpReg, kind, end, signal kobj.Field
	size                                                uint32
	ipStart, ipStop, start                              virt.Addr
	count, ips, entries                                 kobj.Field // of a module
}

func (s *System) orcLayout() (*orcLayout, error) {
	return kobj.LayoutOf(s.Walker, "stacks", func(r *kobj.Resolver, o *orcLayout) {
		r.Prefetch("__start_orc_unwind_ip", "__stop_orc_unwind_ip", "__start_orc_unwind", "__sched_text_start", "__sched_text_end", "__lock_text_start", "__lock_text_end", "ret_from_fork", "ret_from_fork_asm")
		const e = "orc_entry"
		o.spOffset, o.bpOffset, o.size = r.Field(e, "sp_offset"), r.Field(e, "bp_offset"), r.Size(e)
		o.spReg, o.bpReg, o.kind = r.Field(e, "sp_reg"), r.Field(e, "bp_reg"), r.Field(e, "type")
		o.end, o.signal = r.Optional(e, "end"), r.Optional(e, "signal") // to 6.3, from 6.3
		for name, a := range map[string]*virt.Addr{"__start_orc_unwind_ip": &o.ipStart, "__stop_orc_unwind_ip": &o.ipStop, "__start_orc_unwind": &o.start} {
			var err error
			if *a, err = s.SymbolAddr(name); err != nil {
				r.Errs = append(r.Errs, err)
			}
		}
		const m = "module"
		o.count, o.ips, o.entries = r.Optional(m, "arch.num_orcs"), r.Optional(m, "arch.orc_unwind_ip"), r.Optional(m, "arch.orc_unwind")
		const maxEntry = 64
		if o.size == 0 || o.size > maxEntry {
			r.Errs = append(r.Errs, fmt.Errorf("struct orc_entry has %d bytes", o.size))
		}
	})
}

// orcTable is the notes on one stretch of code.
type orcTable struct {
	code    span
	ips     virt.Addr // int32 each: distance of the code from the number's own place
	entries virt.Addr
	n       int
}

// orcs finds notes; those that were found are kept.
type orcs struct {
	s      *System
	o      *orcLayout
	tables []orcTable // by address
	regs   [16]orcReg
	known  map[virt.Addr]orc
}

const maxOrcs = 16 << 20

// framePointers reports whether all code of the kernel keeps frame pointers.
func (u *orcs) framePointers() bool { return !u.o.spOffset.Present() }

func (s *System) orcs(ctx context.Context) (*orcs, error) {
	_, missing := s.StructSize("orc_entry")
	if missing != nil {
		// With CONFIG_UNWINDER_FRAME_POINTER all code keeps frame pointers, and no notes.
		return &orcs{s: s, o: &orcLayout{}, known: map[virt.Addr]orc{}}, nil //nolint:nilerr // that is the answer
	}
	o, err := s.orcLayout()
	if err != nil {
		return nil, err
	}
	u := &orcs{s: s, o: o, known: map[virt.Addr]orc{}}
	if o.ipStop > o.ipStart && uint64(o.ipStop-o.ipStart) <= 4*maxOrcs {
		t := orcTable{span{s.Text, s.Text + 1<<30}, o.ipStart, o.start, int(o.ipStop-o.ipStart) / 4}
		if err := u.learn(t); err != nil {
			return nil, err
		}
		u.tables = append(u.tables, t)
	}
	for m, err := range s.Modules(ctx) {
		if err != nil || !o.count.Present() {
			continue // its code has no notes then
		}
		t := orcTable{}
		r := s.Reader()
		t.n, t.ips, t.entries = int(min(r.Uint(m.Addr, o.count), maxOrcs)), r.Pointer(m.Addr, o.ips), r.Pointer(m.Addr, o.entries)
		err := r.Err
		if err != nil || t.n == 0 {
			continue
		}
		for _, region := range m.Memory {
			if region.Text() {
				t.code = span{region.Start, region.Start + virt.Addr(region.Size)}
				u.tables = append(u.tables, t)
			}
		}
	}
	slices.SortFunc(u.tables, func(a, b orcTable) int { return cmp.Compare(a.code.start, b.code.start) })
	return u, nil
}

// learn finds out which numbers the registers have in this kernel.
func (u *orcs) learn(t orcTable) error {
	const sample = 4096
	n := min(t.n, sample)
	b := make([]byte, n*int(u.o.size))
	if err := u.s.ReadAt(b, t.entries+virt.Addr((t.n-n)/2)*virt.Addr(u.o.size)); err != nil {
		return fmt.Errorf("stacks: notes for unwinding at %#x: %w", uint64(t.entries), err)
	}
	var count [16]int
	best := uint64(1)
	for ; len(b) > 0; b = b[u.o.size:] {
		if reg := FieldIn(b, u.o.spReg) & 15; reg != 0 {
			if count[reg]++; count[reg] > count[best] {
				best = reg
			}
		}
	}
	regs, ok := orcNumbers[best]
	if !ok {
		return fmt.Errorf("stacks: notes for unwinding, which count from register %d: %w", best, kobj.ErrUnsupported)
	}
	u.regs = regs
	return nil
}

// at is the note for the code at ip.
func (u *orcs) at(r *kobj.Reader, ip virt.Addr) (e orc, ok bool) {
	if e, ok := u.known[ip]; ok {
		return e, true
	}
	i := slices.IndexFunc(u.tables, func(t orcTable) bool { return ip >= t.code.start && ip < t.code.end })
	if i < 0 {
		return framePointer, false
	}
	t := u.tables[i]
	// The last of those that begin at ip or before.
	low, high := 0, t.n
	for low < high {
		middle := (low + high) / 2
		place := t.ips + virt.Addr(4*middle)
		if place+virt.Addr(int64(int32(r.U32(place)))) <= ip {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low == 0 || r.Err != nil {
		return framePointer, false
	}
	e = u.parse(r.Bytes(t.entries+virt.Addr(low-1)*virt.Addr(u.o.size), int(u.o.size)))
	if r.Err != nil {
		return framePointer, false
	}
	const most = 1 << 20
	if len(u.known) < most {
		u.known[ip] = e
	}
	return e, true
}

// parse reads an entry. The kinds got other numbers, and one bit more, in 6.4.
func (u *orcs) parse(b []byte) orc {
	o := u.o
	e := orc{
		spOffset: int64(int16(FieldIn(b, o.spOffset))), bpOffset: int64(int16(FieldIn(b, o.bpOffset))),
		spReg: u.regs[FieldIn(b, o.spReg)&15], bpReg: u.regs[FieldIn(b, o.bpReg)&15], signal: FieldIn(b, o.signal) != 0,
	}
	kinds := [...]orcKind{orcUndefined, orcEnd, orcCall, orcRegs, orcPartial}
	if o.end.Present() {
		kinds = [...]orcKind{orcCall, orcRegs, orcPartial, orcUndefined, orcUndefined}
	}
	if k := FieldIn(b, o.kind); k < uint64(len(kinds)) {
		e.kind = kinds[k]
	}
	if FieldIn(b, o.end) != 0 {
		e.kind = orcEnd
	}
	if !o.signal.Present() {
		e.signal = e.kind == orcRegs || e.kind == orcPartial
	}
	return e
}
