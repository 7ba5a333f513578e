package elfcore_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/elfcore"
	"github.com/outsight-vmi/outsight/phys/note"
)

type source struct{ *bytes.Reader }

func (source) Close() error   { return nil }
func (s source) Size() uint64 { return uint64(s.Reader.Size()) }

func open(b []byte) (*elfcore.Memory, error) { return elfcore.New(source{bytes.NewReader(b)}) }

// segment is one program header of a core made by hand.
type segment struct {
	kind                  uint32
	offset, paddr, length uint64
	inMemory              uint64
}

// core makes an ELF core of segments, followed by data.
func core(segments []segment, data []byte) []byte {
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(b[16:], 4)
	binary.LittleEndian.PutUint16(b[18:], 62)
	binary.LittleEndian.PutUint64(b[32:], 64)
	binary.LittleEndian.PutUint16(b[54:], 56)
	binary.LittleEndian.PutUint16(b[56:], uint16(len(segments)))
	base := uint64(64 + 56*len(segments))
	for _, s := range segments {
		p := make([]byte, 56)
		binary.LittleEndian.PutUint32(p, s.kind)
		binary.LittleEndian.PutUint64(p[8:], base+s.offset)
		binary.LittleEndian.PutUint64(p[24:], s.paddr)
		binary.LittleEndian.PutUint64(p[32:], s.length)
		binary.LittleEndian.PutUint64(p[40:], max(s.length, s.inMemory))
		b = append(b, p...)
	}
	return append(b, data...)
}

func small() []byte {
	notes := note.Append(nil, note.Note{Name: "VMCOREINFO", Desc: []byte("OSRELEASE=6.1\n")})
	n := uint64(len(notes))
	data := append(notes, "0123456789abcdef"...)
	return core([]segment{
		{kind: 4, length: n},
		{kind: 1, offset: n + 8, paddr: 0x2000, length: 8, inMemory: 16},
		{kind: 1, offset: n, paddr: 0x1000, length: 8},
		{kind: 1, offset: n, paddr: ^uint64(0), length: 8},
	}, data)
}

func Example() {
	m, err := open(small())
	if err != nil {
		fmt.Println(err)
		return
	}
	b := make([]byte, 8)
	_, err = m.ReadAt(b, 0x2000)
	fmt.Printf("%s %v %v %q\n", b, err, m.Ranges(), m.Vmcoreinfo())
	// Output: 89abcdef <nil> [[0x1000, 0x1008) [0x2000, 0x2008)] "OSRELEASE=6.1\n"
}

// TestLeftOut: what is in memory and not in the file is not made up.
func TestLeftOut(t *testing.T) {
	m, err := open(small())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.ReadAt(make([]byte, 8), 0x2004); !errors.Is(err, phys.ErrNotPresent) {
		t.Errorf("%v", err)
	}
}

// TestManySegments: more than fit the file header.
func TestManySegments(t *testing.T) {
	const n = 70000
	var segments []segment
	for i := range uint64(n) {
		segments = append(segments, segment{kind: 1, offset: i % 4, paddr: i * 0x1000, length: 4})
	}
	b := core(segments, []byte("abcdefgh"))
	binary.LittleEndian.PutUint16(b[56:], 0xffff)
	binary.LittleEndian.PutUint64(b[40:], uint64(len(b)))
	section := make([]byte, 64)
	binary.LittleEndian.PutUint32(section[44:], n)
	b = append(b, section...)
	m, err := open(b)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	for _, i := range []uint64{0, 1, 65535, 69999} {
		if _, err := m.ReadAt(got, phys.Addr(i*0x1000)); err != nil || string(got) != "abcdefgh"[i%4:][:4] {
			t.Errorf("segment %d: %q %v", i, got, err)
		}
	}
}

// TestMachineIsAHint: which architecture a header names does not decide what can be read.
func TestMachineIsAHint(t *testing.T) {
	b := small()
	b[18] = 0xb7
	m, err := open(b)
	if err != nil || m.Machine() != elf.EM_AARCH64 {
		t.Fatalf("%v %v", m, err)
	}
	got := make([]byte, 8)
	if _, err := m.ReadAt(got, 0x2000); err != nil || string(got) != "89abcdef" {
		t.Errorf("%q %v", got, err)
	}
}

// small32 is a core in the form of 32-bit machines.
func small32() []byte {
	put16, put32 := binary.LittleEndian.PutUint16, binary.LittleEndian.PutUint32
	b := make([]byte, 52+3*32)
	copy(b, "\x7fELF\x01\x01\x01")
	put16(b[16:], 4)
	put16(b[18:], uint16(elf.EM_386))
	put32(b[28:], 52)
	put16(b[42:], 32)
	put16(b[44:], 3)
	for i, s := range []segment{
		{kind: 1, offset: 8, paddr: 0x2000, length: 8}, {kind: 1, paddr: 0x1000, length: 8}, {kind: 1, paddr: 0xffff_ffff, length: 8},
	} {
		p := b[52+32*i:]
		put32(p, s.kind)
		put32(p[4:], uint32(len(b))+uint32(s.offset))
		put32(p[12:], uint32(s.paddr))
		put32(p[16:], uint32(s.length))
	}
	return append(b, "0123456789abcdef"...)
}

// Test32: QEMU writes this form for a 64-bit machine whose processors were in their firmware.
func Test32(t *testing.T) {
	m, err := open(small32())
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 8)
	if _, err := m.ReadAt(got, 0x2000); err != nil || string(got) != "89abcdef" || len(m.Ranges()) != 2 {
		t.Errorf("%q %v %v", got, m.Ranges(), err)
	}
}

// TestCutOff: what a dump lacks is counted.
func TestCutOff(t *testing.T) {
	b := small()
	m, err := open(b[:len(b)-5])
	if err != nil || m.Lost() != 5 {
		t.Errorf("%v", err)
	}
	if m, err := open(b); err != nil || m.Lost() != 0 {
		t.Errorf("%v", err)
	}
}

func TestHostile(t *testing.T) {
	whole := small()
	for n := range whole {
		if m, err := open(whole[:n]); err == nil {
			_, _ = m.ReadAt(make([]byte, 64), 0x1000)
		}
	}
	patch := func(at int, v ...byte) []byte {
		b := bytes.Clone(whole)
		copy(b[at:], v)
		return b
	}
	for name, b := range map[string][]byte{
		"32 bit":                patch(4, 1),
		"big-endian":            patch(5, 2),
		"no core":               patch(16, 2),
		"headers of no size":    patch(54, 0, 0),
		"segments beyond":       patch(56, 0xfe, 0xff),
		"segment count beyond":  patch(56, 0xff, 0xff),
		"headers beyond":        patch(32, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"no segment is in file": core([]segment{{kind: 1, offset: 1 << 40, paddr: 0, length: 8}}, nil),
	} {
		if _, err := open(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzELF(f *testing.F) {
	f.Add(small())
	f.Add(small32())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := open(b)
		if err != nil {
			return
		}
		m.CPUs()
		buf := make([]byte, 16)
		for _, r := range m.Ranges() {
			if _, err := m.ReadAt(buf[:min(16, r.Size())], r.Start); err != nil {
				t.Fatalf("%v: %v", r, err)
			}
		}
	})
}
