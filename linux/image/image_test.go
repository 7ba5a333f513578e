package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// open opens the synthetic guest g.
func open(t testing.TB, g *synth.Guest) *linux.System {
	t.Helper()
	s, err := linux.Open(t.Context(), g.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// elfFile is the beginning of a program that is linked at vaddr.
func elfFile(order binary.ByteOrder, kind elf.Type, vaddr uint64, id []byte) []byte {
	var b bytes.Buffer
	data := elf.ELFDATA2LSB
	if order == binary.BigEndian {
		data = elf.ELFDATA2MSB
	}
	h := elf.Header64{Type: uint16(kind), Machine: uint16(elf.EM_X86_64), Version: 1, Entry: vaddr + 0x40, Phoff: 64, Phentsize: 56, Phnum: 2}
	copy(h.Ident[:], elf.ELFMAG+string([]byte{byte(elf.ELFCLASS64), byte(data), 1}))
	notes := []any{uint32(4), uint32(5), uint32(7), []byte("GNU\x00other\x00\x00\x00"), uint32(4), uint32(len(id)), uint32(3), []byte("GNU\x00"), id}
	for _, part := range append([]any{
		h,
		elf.Prog64{Type: uint32(elf.PT_LOAD), Vaddr: vaddr, Filesz: 4096, Memsz: 4096},
		elf.Prog64{Type: uint32(elf.PT_NOTE), Off: 176, Vaddr: vaddr + 176, Filesz: uint64(40 + len(id)), Align: 4},
	}, notes...) {
		if err := binary.Write(&b, order, part); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func TestParse(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		b := elfFile(order, elf.ET_DYN, 0x40_0000, []byte{1, 2, 0xff, 4})
		h, err := parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.readBuildID(bytes.NewReader(append(b, make([]byte, 4096)...))); err != nil {
			t.Error(err)
		}
		if h.Type != elf.ET_DYN || h.Machine != elf.EM_X86_64 || h.Entry != 0x40_0040 || h.BuildID != "0102ff04" {
			t.Errorf("%v: %+v", order, h)
		}
	}
	for name, b := range map[string][]byte{"short": []byte("\x7fELF"), "text": bytes.Repeat([]byte("text"), 20), "no class": append([]byte("\x7fELF\x07\x01"), make([]byte, 60)...)} {
		if h, err := parse(b); err == nil {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(elfFile(binary.LittleEndian, elf.ET_EXEC, 0x40_0000, []byte{1, 2, 3, 4}))
	f.Add(elfFile(binary.BigEndian, elf.ET_DYN, 0, []byte{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parse(b)
		if err != nil {
			return
		}
		_ = h.readBuildID(bytes.NewReader(b))
		if len(h.BuildID) > 128 || len(h.BuildID)%2 != 0 {
			t.Errorf("build-id %q", h.BuildID)
		}
	})
}

// A header in anonymous memory is found by the page tables alone.
func TestStarts(t *testing.T) {
	g := synth.New(synth.Options{})
	task := g.Add(synth.Process{PID: 7, Comm: "p", Args: []string{"p"}})
	mm := g.Get(task, "task_struct", "mm")
	tab := g.Tables(g.Phys(g.Get(mm, "mm_struct", "pgd")))
	page := g.Alloc(4096, 4096)
	g.Put(page, elfFile(binary.LittleEndian, elf.ET_DYN, 0, []byte{0xab}))
	const at = 0x7f00_0000_3000
	tab.Map(at, g.Phys(page), 4096, synth.Present|synth.User|synth.NX)
	s := open(t, g)
	space, err := s.UserSpace(virt.Addr(mm))
	if err != nil {
		t.Fatal(err)
	}
	starts, err := NewReader(s).starts(t.Context(), space)
	if err != nil || len(starts) != 1 || starts[0] != at {
		t.Fatalf("%#x, %v", starts, err)
	}
	i := read(space, at)
	if i.Err != nil || i.Header.Type != elf.ET_DYN || i.Header.BuildID != "ab" {
		t.Errorf("%+v, %v", i.Header, i.Err)
	}
	if i.place(nil, nil) || i.Mapping != nil || i.End != at+4096 {
		t.Errorf("%+v", i)
	}
	maps := []*linux.Mapping{{Start: 0x1000, End: 0x2000}, {Start: at - 4096, End: at + 8192}}
	if !i.place(maps, []*linux.MappedImage{{Start: at, End: at + 3*4096}}) || i.Mapping != maps[1] || i.End != at+3*4096 {
		t.Errorf("%+v", i)
	}
	if i := read(space, at+4096); i.Err == nil || i.Header != nil {
		t.Errorf("not mapped: %+v", i)
	}
}

func TestNames(t *testing.T) {
	for value, want := range map[elf.Type]string{
		elf.ET_NONE: "NONE", elf.ET_EXEC: "EXEC", elf.ET_DYN: "DYN", elf.ET_CORE: "CORE", 20: "0x14", 0xfdff: "0xfdff",
		elf.ET_LOOS: "LOOS+0x0", 0xfe11: "LOOS+0x11", elf.ET_LOPROC: "LOPROC+0x0", 0xffff: "LOPROC+0xff",
	} {
		if got := (&Header{Type: value}).TypeName(); got != want {
			t.Errorf("type %#x: %s, want %s", uint16(value), got, want)
		}
	}
	for value, want := range map[elf.Machine]string{elf.EM_386: "386", elf.EM_X86_64: "X86_64", elf.EM_8051: "8051", 6: "486", 0xbeef: "0xbeef"} {
		if got := (&Header{Machine: value}).MachineName(); got != want {
			t.Errorf("machine %#x: %s, want %s", uint16(value), got, want)
		}
	}
}
