package note_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/outsight-vmi/outsight/phys/note"
)

func Example() {
	b := note.Append(nil, note.Note{Name: "CORE", Type: 1, Desc: []byte("abc")})
	b = note.Append(b, note.Note{Name: "VMCOREINFO", Desc: []byte("OSRELEASE=6.1\n")})
	for n := range note.All(b) {
		fmt.Println(n.Name, n.Type, len(n.Desc))
	}
	fmt.Printf("%s", note.Vmcoreinfo(b))
	// Output:
	// CORE 1 3
	// VMCOREINFO 0 14
	// OSRELEASE=6.1
}

func TestCPUs(t *testing.T) {
	desc := make([]byte, 440)
	put := binary.LittleEndian.PutUint64
	put(desc[136:], 0xffffffff81000000) // rip
	desc[152] = 0x33                    // cs
	put(desc[392:], 0x80050033)
	put(desc[392+24:], 0x1234000)
	put(desc[432:], 0xffff888000000000)
	b := note.Append(nil, note.Note{Name: "QEMU", Desc: desc})
	b = note.Append(b, note.Note{Name: "QEMU", Desc: desc[:100]})
	b = note.Append(b, note.Note{Name: "QEMU", Desc: desc[:432]})
	cpus := note.CPUs(b)
	if len(cpus) != 2 {
		t.Fatalf("%d processors", len(cpus))
	}
	c := cpus[0]
	if c.RIP != 0xffffffff81000000 || c.CPL != 3 || c.CR0 != 0x80050033 || c.CR3 != 0x1234000 || c.KernelGSBase != 0xffff888000000000 {
		t.Errorf("%+v", c)
	}
	if cpus[1].KernelGSBase != 0 {
		t.Errorf("%+v", cpus[1])
	}
}

// TestAppendCPUs: what was written reads back, and an NT_PRSTATUS has the registers
// where tools look for them.
func TestAppendCPUs(t *testing.T) {
	c := note.CPU{
		RIP: 1, RSP: 2, RFLAGS: 3, CR0: 4, CR2: 5, CR3: 6, CR4: 7, FSBase: 8, GSBase: 9, KernelGSBase: 10,
		GDT: 11, IDT: 12, TR: 13, LDT: 14, GDTLimit: 127, IDTLimit: 4095, CPL: 3, Selectors: [6]uint16{0x33, 1, 2, 3, 4, 0x2b},
	}
	for i := range c.General {
		c.General[i] = uint64(100 + i)
	}
	c.General[6] = c.RSP
	b := note.AppendCPUs(nil, []note.CPU{c, {CR3: 15, CPL: 3}})
	got := note.CPUs(b)
	if len(got) != 2 || got[0] != c || got[1].CR3 != 15 || got[1].CPL != 3 {
		t.Errorf("%+v", got)
	}
	var status [][]byte
	for n := range note.All(b) {
		if n.Name == "CORE" && n.Type == 1 {
			status = append(status, n.Desc)
		}
	}
	if len(status) != 2 || len(status[0]) != 336 {
		t.Fatalf("%d statuses", len(status))
	}
	u := func(off int) uint64 { return binary.LittleEndian.Uint64(status[0][112+off:]) }
	for off, want := range map[int]uint64{0: 115, 32: 107, 40: 101, 80: 100, 128: 1, 136: 0x33, 152: 2, 160: 0x2b, 168: 8, 176: 9} {
		if u(off) != want {
			t.Errorf("register at %d: %d, not %d", off, u(off), want)
		}
	}
}

// TestPrstatus: without QEMU's notes, an NT_PRSTATUS for each processor is what is known.
func TestPrstatus(t *testing.T) {
	c := note.CPU{Partial: true, RIP: 1, RSP: 2, RFLAGS: 3, FSBase: 8, CPL: 3, Selectors: [6]uint16{0x33, 1, 2, 3, 4, 0x2b}}
	for i := range c.General {
		c.General[i] = uint64(100 + i)
	}
	c.General[6] = c.RSP
	b := note.AppendCPUs(nil, []note.CPU{c, {Partial: true, RIP: 7}})
	got := note.CPUs(b)
	if len(got) != 2 || got[0] != c || got[1].RIP != 7 || !got[1].Partial {
		t.Errorf("%+v", got)
	}
	b = note.Append(nil, note.Note{Name: "CORE", Type: 1, Desc: make([]byte, 327)})
	b = note.Append(b, note.Note{Name: "CORE", Type: 3, Desc: make([]byte, 336)})
	if got := note.CPUs(b); got != nil {
		t.Errorf("%+v", got)
	}
}

func FuzzNotes(f *testing.F) {
	f.Add(note.Append(nil, note.Note{Name: "QEMU", Desc: make([]byte, 440)}))
	f.Add(note.AppendCPUs(nil, make([]note.CPU, 2)))
	f.Add(note.AppendCPUs(nil, []note.CPU{{Partial: true}}))
	f.Fuzz(func(_ *testing.T, b []byte) {
		note.CPUs(b)
		note.Vmcoreinfo(b)
	})
}

func TestBuildID(t *testing.T) {
	type byteOrder interface {
		binary.ByteOrder
		binary.AppendByteOrder
	}
	for _, order := range []byteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, align := range []int{4, 8} {
			var b []byte
			add := func(kind uint32, name, desc string) {
				for _, n := range []uint32{uint32(len(name)), uint32(len(desc)), kind} {
					b = order.AppendUint32(b, n)
				}
				for _, part := range []string{name, desc} {
					b = append(b, part...)
					for len(b)%align != 0 {
						b = append(b, 0)
					}
				}
			}
			add(3, "Xen\x00", "no GNU's")
			add(5, "GNU\x00", "another kind")
			add(3, "GNU\x00", "abcde")
			add(3, "GNU\x00", "second")
			if got := note.BuildID(b, order, uint64(align)); string(got) != "abcde" {
				t.Errorf("%v, %d: %q", order, align, got)
			}
			if got := note.BuildID(b[:len(b)/2], order, uint64(align)); got != nil {
				t.Errorf("%v, %d, cut: %q", order, align, got)
			}
		}
	}
}
