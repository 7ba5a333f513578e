package qemustate_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/qemustate"
)

type source struct{ *bytes.Reader }

func (source) Close() error   { return nil }
func (s source) Size() uint64 { return uint64(s.Reader.Size()) }

func open(b []byte) (*qemustate.Memory, error) { return qemustate.New(source{bytes.NewReader(b)}) }

// saved is a stream that is made by hand.
type saved struct{ b []byte }

func (s *saved) u8(v byte)     { s.b = append(s.b, v) }
func (s *saved) u32(v uint32)  { s.b = binary.BigEndian.AppendUint32(s.b, v) }
func (s *saved) u64(v uint64)  { s.b = binary.BigEndian.AppendUint64(s.b, v) }
func (s *saved) text(t string) { s.u8(byte(len(t))); s.b = append(s.b, t...) }
func (s *saved) end()          { s.u64(0x10); s.u8(0x7e); s.u32(2) }
func (s *saved) page(block string, at uint64, c string) {
	flags := uint64(0x08)
	if c == "" {
		flags = 0x02
	}
	if block == "" {
		flags |= 0x20
	}
	s.u64(at | flags)
	if block != "" {
		s.text(block)
	}
	if c == "" {
		s.u8(0)
	} else {
		s.b = append(s.b, bytes.Repeat([]byte(c), 4096/len(c))...)
	}
}

func head(capabilities ...string) *saved {
	s := &saved{b: []byte("QEVM")}
	s.u32(3)
	s.u8(7)
	s.u32(11)
	s.b = append(s.b, "pc-q35-10.0"...)
	if len(capabilities) > 0 {
		s.u8(5)
		s.text("configuration/capabilities")
		s.u32(1)
		s.u32(uint32(len(capabilities)))
		for _, c := range capabilities {
			s.text(c)
		}
	}
	s.u8(1)
	s.u32(2)
	s.text("ram")
	s.u32(0)
	s.u32(4)
	return s
}

const ramSize = 4 << 20

func small() []byte {
	s := head()
	s.u64(ramSize + 0x2000 | 0x04)
	s.text("pc.ram")
	s.u64(ramSize)
	s.text("0000:00:01.0/vga.vram")
	s.u64(0x2000)
	s.end()
	s.u8(2)
	s.u32(2)
	s.page("pc.ram", 0x1000, "old ")
	s.page("", 0x2000, "two ")
	s.page("0000:00:01.0/vga.vram", 0, "vga ")
	s.page("pc.ram", 0x3000, "gone")
	s.page("", 0x4000, "")
	s.end()
	s.u8(3)
	s.u32(2)
	s.page("pc.ram", 0x1000, "new ")
	s.page("", 0x3000, "")
	s.end()
	s.u8(4) // a device, which is not looked at
	return append(s.b, "rest"...)
}

func Example() {
	m, err := open(small())
	if err != nil {
		fmt.Println(err)
		return
	}
	b := make([]byte, 8)
	_, err = m.ReadAt(b, 0x1ffc)
	fmt.Printf("%q %v %s %v\n", b, err, m.Machine(), m.Ranges())
	// Output: "new two " <nil> pc-q35-10.0 [[0x0, 0x400000)]
}

func TestLastPageCounts(t *testing.T) {
	m, err := open(small())
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[phys.Addr]string{0: "\x00\x00\x00\x00", 0x1000: "new ", 0x2000: "two ", 0x3000: "\x00\x00\x00\x00", ramSize - 4: "\x00\x00\x00\x00"} {
		b := []byte("????")
		if _, err := m.ReadAt(b, at); err != nil || string(b) != want {
			t.Errorf("%v: %q %v", at, b, err)
		}
	}
	r, ok := m.NextPopulated(0)
	if !ok || r != (phys.Range{Start: 0, End: 2 << 20}) {
		t.Errorf("populated %v %v", r, ok)
	}
	if r, ok := m.NextPopulated(2 << 20); ok {
		t.Errorf("populated %v", r)
	}
}

func TestMappedRAM(t *testing.T) {
	s := head("mapped-ram")
	s.u64(ramSize | 0x04)
	s.text("pc.ram")
	s.u64(ramSize)
	const bitmap, pages = 1 << 12, 1 << 20
	s.u32(1)
	s.u64(4096)
	s.u64(bitmap)
	s.u64(pages)
	b := make([]byte, pages+ramSize)
	copy(b, s.b)
	b[bitmap] = 1 << 3
	copy(b[pages+3*4096:], "mapped")
	copy(b[pages+4*4096:], "stale!") // not in the bitmap
	tail := &saved{b: b}
	tail.end()
	tail.u8(3)
	tail.u32(2)
	tail.end()
	m, err := open(tail.b)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 6)
	if _, err := m.ReadAt(got, 0x3000); err != nil || string(got) != "mapped" {
		t.Errorf("%q %v", got, err)
	}
	if _, err := m.ReadAt(got, 0x4000); err != nil || string(got) != "\x00\x00\x00\x00\x00\x00" {
		t.Errorf("%q %v", got, err)
	}
}

func libvirt(packing uint32) []byte {
	b := make([]byte, 92)
	copy(b, qemustate.LibvirtMagic)
	binary.LittleEndian.PutUint32(b[16:], 2)
	binary.LittleEndian.PutUint32(b[20:], 9)
	binary.LittleEndian.PutUint32(b[28:], packing)
	return append(append(b, "<domain/>"...), small()...)
}

func TestLibvirt(t *testing.T) {
	src, err := qemustate.Unwrap(source{bytes.NewReader(libvirt(0))})
	if err != nil {
		t.Fatal(err)
	}
	m, err := qemustate.New(src)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := m.ReadAt(b, 0x2000); err != nil || string(b) != "two " {
		t.Errorf("%q %v", b, err)
	}
	for packing, want := range map[uint32]string{1: "gzip", 5: "zstd", 77: "unknown"} {
		if _, err := qemustate.Unwrap(source{bytes.NewReader(libvirt(packing))}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("packing %d: %v", packing, err)
		}
	}
}

// TestCutOff: a stream that was cut off has the pages that came before, and the others are
// lost, not zeros.
func TestCutOff(t *testing.T) {
	whole := small()
	n := bytes.Index(whole, []byte("vga vga "))
	m, err := open(whole[:n+100])
	if err != nil {
		t.Fatal(err)
	}
	if want := uint64(ramSize - 2*4096); m.Lost() != want {
		t.Errorf("%d bytes lost, want %d", m.Lost(), want)
	}
	b := make([]byte, 4)
	if _, err := m.ReadAt(b, 0x1000); err != nil || string(b) != "old " {
		t.Errorf("%q %v", b, err)
	}
	for _, at := range []phys.Addr{0, 0x4000, ramSize - 4} {
		if _, err := m.ReadAt(b, at); !errors.Is(err, phys.ErrNotPresent) {
			t.Errorf("%#x: %v", uint64(at), err)
		}
	}
	if m, err := open(whole); err != nil || m.Lost() != 0 {
		t.Errorf("whole: %v", err)
	}
}

func TestHostile(t *testing.T) {
	whole := small()
	for n := range len(whole) - 10 {
		if n%7 == 0 {
			if m, err := open(whole[:n]); err == nil && m.Lost() == 0 {
				t.Errorf("%d of %d bytes: nothing is lost", n, len(whole))
			}
		}
	}
	for at := range 300 {
		b := bytes.Clone(whole)
		b[at] ^= 0xff
		if m, err := open(b); err == nil {
			_, _ = m.ReadAt(make([]byte, 8192), 0)
		}
	}
	for name, capability := range map[string]string{"x-ignore-shared": "x-ignore-shared"} {
		s := head(capability)
		if _, err := open(s.b); err == nil || !strings.Contains(err.Error(), capability) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for flags, want := range map[uint64]string{0x40: "xbzrle", 0x100: "compress", 0x80: "RDMA", 0x800: "flags"} {
		s := head()
		s.u64(flags)
		if _, err := open(s.b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("flags %#x: %v", flags, err)
		}
	}
}

func FuzzState(f *testing.F) {
	f.Add(small())
	f.Fuzz(func(_ *testing.T, b []byte) {
		m, err := open(b)
		if err != nil {
			return
		}
		_, _ = m.ReadAt(make([]byte, 8192), 0)
		m.NextPopulated(0)
	})
}
