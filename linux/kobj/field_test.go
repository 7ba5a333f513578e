package kobj

import (
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/virt"
)

// A member at offset 0 is a member like any other, and one that is missing is none.
func TestFieldPresence(t *testing.T) {
	g, w, room := walkerGuest(t)
	a := room(2)
	g.Put64(a, 0x1122_3344_5566_7788)
	r := w.Reader()
	first := FieldAt(0, 8)
	if !first.Present() || r.Uint(virt.Addr(a), first) != 0x1122_3344_5566_7788 || first.At(virt.Addr(a)) != virt.Addr(a) {
		t.Errorf("%+v", first)
	}
	var none Field
	if none.Present() || r.Uint(virt.Addr(a), none) != 0 || r.Int(virt.Addr(a), none) != 0 || r.Pointer(virt.Addr(a), none) != 0 || r.Err != nil {
		t.Errorf("missing: %+v, %v", none, r.Err)
	}
	if r.U64(none.At(virt.Addr(a))); r.Err == nil {
		t.Error("a missing member was read")
	}
	resolve := Resolver{Profile: w.Profile, Types: w.Profile}
	if f := resolve.Field("list_head", "next"); !f.Present() || f.Offset != 0 {
		t.Errorf("list_head.next: %+v", f)
	}
	if f := resolve.Optional("list_head", "nothing"); f.Present() || len(resolve.Errs) > 0 {
		t.Errorf("optional: %+v, %v", f, resolve.Errs)
	}
	if f := resolve.Field("list_head", "nothing"); f.Present() || len(resolve.Errs) != 1 {
		t.Errorf("%+v, %v", f, resolve.Errs)
	}
}

// Whole members and bit fields read as what their bits are.
func TestFieldValues(t *testing.T) {
	g, w, room := walkerGuest(t)
	a := room(2)
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.Uint64().Draw(t, "memory")
		g.Put64(a, word)
		size := rapid.SampledFrom([]uint32{1, 2, 4, 8}).Draw(t, "size")
		offset := rapid.Uint32Range(0, 8-size).Draw(t, "offset")
		f := FieldAt(offset, size)
		var raw [8]byte
		binary.LittleEndian.PutUint64(raw[:], word)
		bits, want := uint(8*size), uint64(0)
		first := uint(0)
		if rapid.Bool().Draw(t, "bit field") {
			bits = rapid.UintRange(1, 8*uint(size)).Draw(t, "bits")
			first = rapid.UintRange(0, 8*uint(size)-bits).Draw(t, "first")
			f.BitOff, f.BitSize = uint8(first), uint8(bits)
		}
		for i := range bits { // one by one
			at := 8*uint(offset) + first + i
			want |= uint64(raw[at/8]>>(at%8)&1) << i
		}
		r := w.Reader()
		if got := r.Uint(virt.Addr(a), f); got != want || r.Err != nil {
			t.Fatalf("%+v: %#x, not %#x, %v", f, got, want, r.Err)
		}
		signed := int64(want)
		if bits < 64 && want>>(bits-1) != 0 {
			signed -= 1 << bits
		}
		if got := r.Int(virt.Addr(a), f); got != signed {
			t.Fatalf("%+v: %d, not %d", f, got, signed)
		}
	})
}

// Objects that are chained by a pointer that is not their first member.
func TestSList(t *testing.T) {
	g, w, room := walkerGuest(t)
	head, next := room(1), FieldAt(16, 8)
	objects := []uint64{room(4), room(4), room(4)}
	g.Put64(head, objects[0])
	for i, o := range objects[:2] {
		g.Put64(o, 0xbad_0bad) // not a pointer to anything
		g.Put64(o+16, objects[i+1])
	}
	n := 0
	for a, err := range w.SList(t.Context(), virt.Addr(head), next, 10) {
		if err != nil || uint64(a) != objects[n] {
			t.Fatalf("object %d: %#x, %v", n, uint64(a), err)
		}
		n++
	}
	if n != 3 {
		t.Errorf("%d objects", n)
	}
	n = 0
	for _, err := range w.SList(t.Context(), virt.Addr(head), Field{}, 10) {
		if n++; err == nil {
			t.Error("an object without a member for the next")
		}
	}
	if n != 1 {
		t.Errorf("%d errors", n)
	}
}

// Reads allocate nothing.
func TestReadsAllocateNothing(t *testing.T) {
	g, w, room := walkerGuest(t)
	head := room(2)
	prev := head
	for range 10 {
		n := room(2)
		g.Put64(prev, n)
		g.Put64(n+8, prev)
		prev = n
	}
	g.Put64(prev, head)
	g.Put64(head+8, prev)
	r := w.Reader()
	r.Scratch(8)
	fields := []Field{FieldAt(0, 8), FieldAt(4, 4), {Field: kernel.Field{Size: 4, BitOff: 3, BitSize: 7}, present: true}}
	if n := testing.AllocsPerRun(100, func() {
		for _, f := range fields {
			r.Uint(virt.Addr(head), f)
		}
		r.Bytes(virt.Addr(head), 16)
	}); n != 0 || r.Err != nil {
		t.Errorf("reads: %v allocations, %v", n, r.Err)
	}
	walk := func(elements int) float64 {
		return testing.AllocsPerRun(100, func() {
			n := 0
			for _, err := range w.List(t.Context(), virt.Addr(head), 100) {
				if n++; err != nil {
					t.Error(err)
				}
				if n == elements {
					break
				}
			}
		})
	}
	if one, ten := walk(1), walk(10); one != ten {
		t.Errorf("a list of 10: %v allocations, of 1: %v", ten, one)
	}
}
