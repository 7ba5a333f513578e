package vmware_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/note"
	"github.com/outsight-vmi/outsight/phys/vmware"
)

type source struct{ *bytes.Reader }

func (source) Close() error   { return nil }
func (s source) Size() uint64 { return uint64(s.Reader.Size()) }

func sourceOf(b []byte) source { return source{bytes.NewReader(b)} }

// split is a machine's memory with a hole in it.
var split = []vmware.Region{
	{Range: phys.Range{Start: 0, End: 0x2000}, Offset: 0},
	{Range: phys.Range{Start: 1 << 32, End: 1<<32 + 0x3000}, Offset: 0x2000},
}

func content(pages int) (b []byte) {
	for n := range pages {
		b = append(b, bytes.Repeat([]byte{byte('a' + n)}, phys.PageSize)...)
	}
	return b
}

func Example() {
	state := vmware.Append(nil, &vmware.State{Regions: split}, 0)
	s, err := vmware.Read(sourceOf(state))
	if err != nil {
		fmt.Println(err)
		return
	}
	m, err := s.Memory(sourceOf(content(5))) // the .vmem file
	if err != nil {
		fmt.Println(err)
		return
	}
	b := make([]byte, 3)
	_, err = m.ReadAt(b, 1<<32)
	fmt.Printf("%s %v %v\n", b, err, m.Ranges())
	// Output: ccc <nil> [[0x0, 0x2000) [0x100000000, 0x100003000)]
}

func TestEmbedded(t *testing.T) {
	memory := content(5)
	whole := append(vmware.Append(nil, &vmware.State{Regions: split, Embedded: true}, uint64(len(memory))), memory...)
	s, err := vmware.Read(sourceOf(whole))
	if err != nil || !s.Embedded || !s.Placed(1<<40) {
		t.Fatalf("%+v %v", s, err)
	}
	m, err := s.Memory(sourceOf(whole))
	if err != nil {
		t.Fatal(err)
	}
	for pa, want := range map[phys.Addr]byte{0: 'a', 0x1fff: 'b', 1 << 32: 'c', 1<<32 + 0x2fff: 'e'} {
		var b [1]byte
		if _, err := m.ReadAt(b[:], pa); err != nil || b[0] != want {
			t.Errorf("%v: %q %v", pa, b, err)
		}
	}
	var b [1]byte
	if _, err := m.ReadAt(b[:], 0x2000); !errors.Is(err, phys.ErrNotPresent) {
		t.Errorf("in the hole: %v", err)
	}
}

// TestOnePiece: a machine with little memory has no regions.
func TestOnePiece(t *testing.T) {
	s, err := vmware.Read(sourceOf(vmware.Append(nil, &vmware.State{}, 0)))
	if err != nil || !s.Placed(3<<30) || s.Placed(3<<30+1) || s.CPUs != nil {
		t.Fatalf("%+v %v", s, err)
	}
	m, err := s.Memory(sourceOf(content(2)))
	if err != nil || len(m.Ranges()) != 1 || m.Ranges()[0].End != 0x2000 {
		t.Fatalf("%v", err)
	}
}

var processors = []note.CPU{
	{
		RIP: 0xffff_ffff_8100_0001, RSP: 0xffff_c900_0000_0010, RFLAGS: 0x246,
		General:   [16]uint64{1, 2, 3, 4, 5, 6, 0xffff_c900_0000_0010, 8, 9, 10, 11, 12, 13, 14, 15, 16},
		Selectors: [6]uint16{0x10, 1, 2, 3, 4, 0x18},
		CR0:       0x8005_0033, CR2: 0x7fff_0000, CR3: 0x1_2345_6000, CR4: 0x3606f0,
		FSBase: 0x7f00_0000_0001, GSBase: 0xffff_8880_0000_0002, IDT: 0xffff_fe00_0000_0000, TR: 0xffff_fe00_0000_3000, LDT: 7,
	},
	{CR3: 0x2000, Selectors: [6]uint16{0x33}, CPL: 3},
}

func TestRegisters(t *testing.T) {
	s, err := vmware.Read(sourceOf(vmware.Append(nil, &vmware.State{Regions: split, CPUs: processors}, 0)))
	if err != nil || !reflect.DeepEqual(s.CPUs, processors) {
		t.Errorf("%+v %v\nwant\n%+v", s.CPUs, err, processors)
	}
}

// file puts tags, without their end, into the groups of a state.
func file(cpu, memory []byte) []byte {
	b := []byte(vmware.Magics[0])
	b = binary.LittleEndian.AppendUint32(b, 8)
	b = binary.LittleEndian.AppendUint32(b, 3)
	at := 12 + 3*80
	for _, g := range []struct {
		name string
		size int
	}{{"Checkpoint", 2}, {"cpu", len(cpu) + 2}, {"memory", len(memory) + 2}} {
		b = append(b, g.name...)
		b = append(b, make([]byte, 64-len(g.name))...)
		b = binary.LittleEndian.AppendUint64(b, uint64(at))
		b = binary.LittleEndian.AppendUint64(b, uint64(g.size))
		at += g.size
	}
	b = append(b, 0, 0)
	b = append(append(b, cpu...), 0, 0)
	return append(append(b, memory...), 0, 0)
}

// block is a tag that is one, with padding before what it holds.
func block(name string, kind byte, index uint32, content []byte) []byte {
	b := []byte{1<<6 | kind, byte(len(name))}
	b = append(b, name...)
	b = binary.LittleEndian.AppendUint32(b, index)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(content)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(content)))
	b = binary.LittleEndian.AppendUint16(b, 3)
	return append(append(b, "pad"...), content...)
}

// TestBlocks: later versions have all registers of a kind in a block.
func TestBlocks(t *testing.T) {
	var general, control []byte
	for i := range uint64(16) { // rax, rcx, rdx, rbx, rbp, rsp, rsi, rdi, r8 …
		general = binary.LittleEndian.AppendUint64(general, 100+i)
	}
	for i := range uint64(9) {
		control = binary.LittleEndian.AppendUint64(control, 0x1000*i)
	}
	idt := binary.LittleEndian.AppendUint64([]byte{0xff, 0x0f}, 0xffff_fe00_0000_0000)
	b := file(bytes.Join([][]byte{block("gpregs", 63, 0, general), block("CR64", 63, 0, control), block("IDTR", 63, 0, idt)}, nil), nil)
	s, err := vmware.Read(sourceOf(b))
	want := note.CPU{
		General: [16]uint64{100, 103, 101, 102, 106, 107, 105, 104, 108, 109, 110, 111, 112, 113, 114, 115},
		RSP:     105, CR2: 0x2000, CR3: 0x3000, CR4: 0x4000, IDT: 0xffff_fe00_0000_0000,
	}
	if err != nil || len(s.CPUs) != 1 || !reflect.DeepEqual(s.CPUs[0], want) {
		t.Errorf("%+v %v\nwant\n%+v", s, err, want)
	}
}

func TestHostile(t *testing.T) {
	if _, err := vmware.Read(sourceOf(file(nil, block("Memory", 62, 0, content(1))))); !errors.Is(err, vmware.ErrCompressed) {
		t.Errorf("compressed: %v", err)
	}
	tag := func(name string, index, v uint32) []byte {
		b := []byte{1<<6 | 4, byte(len(name))}
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(append(b, name...), index), v)
	}
	for name, b := range map[string][]byte{
		"nothing":                 nil,
		"no groups":               append([]byte(vmware.Magics[0]), make([]byte, 8)...),
		"too many groups":         append([]byte(vmware.Magics[0]), bytes.Repeat([]byte{0xff}, 8)...),
		"regions without entries": file(nil, tag("regionsCount", 0, 2)),
		"too many regions":        file(nil, tag("regionsCount", 0, 1<<30)),
		"a region far away":       file(nil, tag("regionPPN", 1<<30, 0)),
		"a processor far away":    file(tag("rip", 1<<30, 0), nil),
		"a block beyond the end":  file(block("x", 63, 0, nil)[:10], nil),
	} {
		if s, err := vmware.Read(sourceOf(b)); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
	// Wherever it is cut off, it is read or refused.
	whole := vmware.Append(nil, &vmware.State{Regions: split, CPUs: processors, Embedded: true}, 1<<20)
	for n := range whole {
		if s, err := vmware.Read(sourceOf(whole[:n])); err == nil {
			t.Errorf("cut off at %d of %d: %+v", n, len(whole), s)
		}
	}
}

func FuzzState(f *testing.F) {
	// Small, or else most of the time goes into making them smaller.
	f.Add(vmware.Append(nil, &vmware.State{Regions: split[:1]}, 0))
	f.Add(append(vmware.Append(nil, &vmware.State{Embedded: true}, 16), content(1)[:16]...))
	f.Add(file(block("gpregs", 63, 0, make([]byte, 128)), block("Memory", 63, 0, content(1)[:16])))
	f.Fuzz(func(_ *testing.T, b []byte) {
		s, err := vmware.Read(sourceOf(b))
		if err != nil {
			return
		}
		m, err := s.Memory(sourceOf(b))
		if err != nil {
			return
		}
		for i, r := range m.Ranges() {
			if i == 16 {
				break
			}
			_, _ = m.ReadAt(make([]byte, 64), r.Start)
		}
	})
}
