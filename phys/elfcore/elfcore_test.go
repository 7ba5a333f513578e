package elfcore_test

import (
	"bytes"
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
		"another architecture":  patch(18, 0xb7),
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
