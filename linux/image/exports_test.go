package image

import (
	"debug/elf"
	"encoding/binary"
	"testing"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// dynamicProgram maps a program that exports one symbol, and returns its address.
func dynamicProgram(t testing.TB, change func(page []byte)) (*virt.Space, virt.Addr) {
	t.Helper()
	g := synth.New(synth.Options{})
	task := g.Add(synth.Process{PID: 7, Comm: "bash", Args: []string{"bash"}})
	mm := g.Get(task, "task_struct", "mm")
	b := make([]byte, 4096)
	copy(b, elfFile(binary.LittleEndian, elf.ET_DYN, 0, nil))
	// The second program header is the dynamic section, at 0x400.
	ph := b[64+56:]
	binary.LittleEndian.PutUint32(ph, uint32(elf.PT_DYNAMIC))
	binary.LittleEndian.PutUint64(ph[16:], 0x400)
	binary.LittleEndian.PutUint64(ph[40:], 64)
	const base = 0x55_1234_5000
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
