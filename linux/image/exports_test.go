package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"testing"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// dynamicPage is the beginning of a program that exports one symbol, to be mapped at base.
func dynamicPage(base uint64) []byte {
	b := make([]byte, 4096)
	copy(b, elfFile(binary.LittleEndian, elf.ET_DYN, 0, nil))
	// The second program header is the dynamic section, at 0x400.
	ph := b[64+56:]
	binary.LittleEndian.PutUint32(ph, uint32(elf.PT_DYNAMIC))
	binary.LittleEndian.PutUint64(ph[16:], 0x400)
	binary.LittleEndian.PutUint64(ph[40:], 64)
	for i, v := range []uint64{uint64(elf.DT_SYMTAB), 0x500, uint64(elf.DT_STRTAB), base + 0x600, uint64(elf.DT_GNU_HASH), 0x700, 0, 0} {
		binary.LittleEndian.PutUint64(b[0x400+8*i:], v)
	}
	copy(b[0x601:], "history_list\x00")
	binary.LittleEndian.PutUint32(b[0x500+24:], 1)
	binary.LittleEndian.PutUint16(b[0x500+24+6:], 1)
	binary.LittleEndian.PutUint64(b[0x500+24+8:], 0x123)
	for i, v := range []uint32{1, 1, 1, 0, 0, 0, 1, gnuHash("history_list") | 1} { // one bucket, one word of bloom
		binary.LittleEndian.PutUint32(b[0x700+4*i:], v)
	}
	return b
}

// dynamicProgram maps such a program, and returns its address.
func dynamicProgram(t testing.TB, change func(page []byte)) (*virt.Space, virt.Addr) {
	t.Helper()
	g := synth.New(synth.Options{})
	task := g.Add(synth.Process{PID: 7, Comm: "bash", Args: []string{"bash"}})
	mm := g.Get(task, "task_struct", "mm")
	const base = 0x55_1234_5000
	b := dynamicPage(base)
	if change != nil {
		change(b)
	}
	page := g.Alloc(4096, 4096)
	g.Put(page, b)
	tab := g.Tables(g.Phys(g.Get(mm, "mm_struct", "pgd")))
	tab.Map(base, g.Phys(page), 4096, synth.Present|synth.User)
	space, err := open(t, g).UserSpace(virt.Addr(mm))
	if err != nil {
		t.Fatal(err)
	}
	return space, base
}

func TestExports(t *testing.T) {
	space, base := dynamicProgram(t, nil)
	d, err := ExportsOf(space, base)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := d.Symbol("history_list"); err != nil || a != base+0x123 {
		t.Errorf("%#x, %v", uint64(a), err)
	}
	if a, err := d.Symbol("history_length"); err == nil {
		t.Errorf("found what is not there at %#x", uint64(a))
	}
	space, base = dynamicProgram(t, func(b []byte) {
		for i := 0x700; i < 0x740; i++ {
			b[i] = 0xff
		}
	})
	if d, err = ExportsOf(space, base); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Symbol("history_list"); err == nil {
		t.Error("a table of four billion buckets is believed")
	}
}

// bytesAt is memory that has bytes at one address.
type bytesAt struct {
	base virt.Addr
	b    []byte
}

func (m bytesAt) ReadAt(p []byte, a virt.Addr) (int, error) {
	if a < m.base || a-m.base >= virt.Addr(len(m.b)) {
		return 0, io.EOF
	}
	n := copy(p, m.b[a-m.base:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func FuzzExports(f *testing.F) {
	const base = 0x7f00_0000_0000
	f.Add(dynamicPage(base))
	narrow := dynamicPage(base)
	narrow[elf.EI_CLASS] = byte(elf.ELFCLASS32)
	f.Add(narrow)
	huge := dynamicPage(base)
	binary.LittleEndian.PutUint64(huge[64+56+40:], 1<<63) // the dynamic section: negative as an int
	f.Add(huge)
	f.Fuzz(func(t *testing.T, b []byte) {
		mem := bytesAt{base, b}
		d, err := ExportsOf(mem, base)
		if err != nil {
			return
		}
		a, err := d.Symbol("history_list")
		if d.narrow && a > 1<<32 {
			t.Errorf("a 32-bit symbol at %#x", uint64(a))
		}
		if err == nil && !bytes.Contains(b, []byte("history_list\x00")) {
			t.Errorf("a symbol at %#x whose name is nowhere", uint64(a))
		}
	})
}
