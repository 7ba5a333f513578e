package peek_test

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/peek"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

func open(tb testing.TB, g *synth.Guest) *linux.System {
	tb.Helper()
	s, err := linux.Open(tb.Context(), g.Memory, kernel.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// What the first task of a guest is called, by its type and its symbol.
func Example() {
	g := synth.New(synth.Options{})
	g.Put(g.Address("init_task")+g.Member("task_struct", "comm"), []byte("swapper/0\x00"))
	s, err := linux.Open(context.Background(), g.Memory, kernel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	m := peek.Kernel(s)
	comm, err := m.Type("task_struct.comm")
	if err != nil {
		fmt.Println(err)
		return
	}
	at, err := m.Resolve("init_task")
	if err != nil {
		fmt.Println(err)
		return
	}
	for l := range comm.Lines(0, &at) {
		fmt.Println(l.Name, l.Value)
	}
	// Output: comm "swapper/0"
}

func TestResolve(t *testing.T) {
	g := synth.New(synth.Options{Offset: 0x1000_0000})
	m := peek.Kernel(open(t, g))
	task := g.Address("init_task")
	for text, want := range map[string]uint64{
		"init_task": task, "init_task+0x10": task + 16, "init_task+8": task + 8, "0x1234": 0x1234, "4096": 4096,
		"ffffffff81000000": 0xffff_ffff_8100_0000,
	} {
		if a, err := m.Resolve(text); err != nil || a != want {
			t.Errorf("%s: %#x, %v; want %#x", text, a, err, want)
		}
	}
	for _, text := range []string{"", "nothing", "init_task+x", "init_task@99", "init_task@x", "module:nothing"} {
		if a, err := m.Resolve(text); !errors.Is(err, peek.ErrPlace) {
			t.Errorf("%q: %#x, %v", text, a, err)
		}
	}
	if a, err := peek.Physical(open(t, g)).Resolve("init_task"); err == nil {
		t.Errorf("physical init_task: %#x", a)
	}
}

func TestSteps(t *testing.T) {
	g := synth.New(synth.Options{Levels: virt.Levels5})
	m := peek.Kernel(open(t, g))
	at, _ := m.Resolve("init_task")
	steps, page, err := m.Steps(at)
	if err != nil || uint64(page.PA) != uint64(g.Phys(at)) || len(steps) < 4 || steps[0].Level != 5 || !steps[len(steps)-1].Leaf {
		t.Errorf("%+v, %+v, %v", steps, page, err)
	}
	for _, s := range steps {
		if flags := s.FlagNames(); len(flags) == 0 || flags[0] != "present" {
			t.Errorf("%+v: %q", s, flags)
		}
	}
	if steps, _, err := m.Steps(0x1000); err == nil || len(steps) == 0 {
		t.Errorf("nothing there: %+v, %v", steps, err)
	}
	if steps, _, err := m.Steps(1 << 63); !virt.IsFault(err, virt.NonCanonical) || steps != nil {
		t.Errorf("no address: %+v, %v", steps, err)
	}
}

func TestHexAndCopy(t *testing.T) {
	g := synth.New(synth.Options{})
	m := peek.Kernel(open(t, g))
	a := g.Alloc(64, 64)
	g.Put(a, []byte("0123456789abcdef\x00\x01secret"))
	var out strings.Builder
	if gaps, err := m.Hex(&out, a+3, 20); err != nil || gaps != nil {
		t.Errorf("%v, %v", gaps, err)
	}
	want := fmt.Sprintf("%016x           33 34 35 36 37  38 39 61 62 63 64 65 66  |   3456789abcdef|\n"+
		"%016x  00 01 73 65 63 72 65                              |..secre         |\n", a, a+16)
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	gaps, err := m.Hex(&out, 0x1000, 32)
	if err != nil || len(gaps) != 1 || gaps[0].Size != 32 || !strings.Contains(out.String(), "?? ??") {
		t.Errorf("%v, %v: %s", gaps, err, out.String())
	}
	var b bytes.Buffer
	if gaps, err := m.Copy(&b, a, 16); err != nil || gaps != nil || b.String() != "0123456789abcdef" {
		t.Errorf("%q, %v, %v", b.String(), gaps, err)
	}
	b.Reset()
	if gaps, err := m.Copy(&b, 0xff0, 32); err != nil || len(gaps) != 1 || gaps[0].Size != 32 || b.String() != strings.Repeat("\x00", 32) {
		t.Errorf("%q, %v, %v", b.String(), gaps, err)
	}
}

func TestSearch(t *testing.T) {
	g := synth.New(synth.Options{})
	s := open(t, g)
	a := g.Alloc(64, 64)
	g.Put(a+8, binary.LittleEndian.AppendUint64(nil, 0x1122_3344_5566_7788))
	g.Put(a+25, binary.LittleEndian.AppendUint64(nil, 0x1122_3344_5566_7788))
	find := func(m *peek.Memory, pattern []byte, align uint64) (found []uint64) {
		for match, err := range m.Search(t.Context(), pattern, align) {
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(match.Context, pattern) {
				t.Errorf("%+v", match)
			}
			found = append(found, match.Addr)
		}
		return found
	}
	pattern := binary.LittleEndian.AppendUint64(nil, 0x1122_3344_5566_7788)
	pa := uint64(g.Phys(a))
	if found := find(peek.Physical(s), pattern, 8); len(found) != 1 || found[0] != pa+8 {
		t.Errorf("aligned: %#x", found)
	}
	if found := find(peek.Physical(s), pattern, 1); len(found) != 2 || found[1] != pa+25 {
		t.Errorf("anywhere: %#x", found)
	}
	if found := find(peek.Kernel(s), []byte("Linux version "), 1); len(found) == 0 {
		t.Error("the kernel has no banner")
	}
	for _, err := range peek.Kernel(s).Search(t.Context(), nil, 1) {
		if !errors.Is(err, peek.ErrPattern) {
			t.Error(err)
		}
	}
}

func TestCode(t *testing.T) {
	g := synth.New(synth.Options{})
	m := peek.Kernel(open(t, g))
	a := g.Alloc(64, 64)
	g.Put(a, []byte{0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, 0x06, 0xc3})
	var got []string
	for i, err := range m.Code(a, 10, m.CodeBits()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d %s", i.Addr-a, i.Text))
	}
	want := []string{"0 endbr64", "4 push %rbp", "5 mov %rsp,%rbp", "8 .byte 0x06", "9 retq"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, err := range m.Code(0x1000, 4, 64) {
		if err == nil {
			t.Error("code where nothing is mapped")
		}
	}
}

// image is an ELF file with one segment, as it lies in memory.
func image() []byte {
	h := elf.Header64{Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: 3, Machine: 62, Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1}
	b, _ := binary.Append(nil, binary.LittleEndian, h)
	b, _ = binary.Append(b, binary.LittleEndian, elf.Prog64{Type: 1, Flags: 5, Vaddr: 0x1000, Filesz: 256, Memsz: 256})
	return append(b, bytes.Repeat([]byte("code"), 34)...)
}

func TestExtract(t *testing.T) {
	g := synth.New(synth.Options{})
	m := peek.Kernel(open(t, g))
	a := g.Alloc(4096, 4096)
	g.Put(a, image())
	path := filepath.Join(t.TempDir(), "image")
	write := func(f func(io.WriterAt) error) []byte {
		out, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f(out), out.Close()); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := write(func(w io.WriterAt) error {
		gaps, err := m.WriteImage(w, a)
		if len(gaps) > 0 {
			t.Error(gaps)
		}
		return err
	})
	if !bytes.Equal(b, image()) {
		t.Errorf("%d bytes, want %d", len(b), len(image()))
	}
	b = write(func(w io.WriterAt) error {
		_, err := m.WriteELF(t.Context(), w, []peek.Segment{{Addr: a, Size: 4096, Flags: elf.PF_R}, {Addr: 0x1000, Size: 4096}})
		return err
	})
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil || len(f.Progs) != 2 {
		t.Fatal(err)
	}
	got, err := io.ReadAll(f.Progs[0].Open())
	if err != nil || !bytes.HasPrefix(got, image()) || len(got) != 4096 || f.Progs[1].Filesz != 0 || f.Progs[1].Memsz != 4096 {
		t.Errorf("%v, %d bytes, %+v", err, len(got), f.Progs[1])
	}
}

// TestReserved: a program may reserve terabytes and touch a few pages. The file is as large as
// those, whatever the file system can hold at most.
func TestReserved(t *testing.T) {
	const start, size = 0x1000_0000_0000, 20 << 40
	g := synth.New(synth.Options{})
	tables := g.Tables(g.Root)
	for i, off := range []uint64{0x5000, 0x9000, 1 << 30, size - 4096} {
		a := g.Alloc(4096, 4096)
		g.Put(a, []byte{byte('a' + i)})
		tables.Map(start+off, g.Phys(a), 4096, synth.Present|synth.User)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "core"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	n, err := peek.Kernel(open(t, g)).WriteELF(t.Context(), out, []peek.Segment{{Addr: start, Size: size, Flags: elf.PF_R | elf.PF_W}})
	if err != nil || n != 4*4096 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if st, err := out.Stat(); err != nil || st.Size() > 1<<20 {
		t.Errorf("the file has %d bytes: %v", st.Size(), err)
	}
	f, err := elf.NewFile(out)
	if err != nil {
		t.Fatal(err)
	}
	next, found := uint64(start), ""
	for _, p := range f.Progs {
		if p.Vaddr != next || p.Flags != elf.PF_R|elf.PF_W {
			t.Errorf("%+v does not begin at %#x", p.ProgHeader, next)
		}
		next = p.Vaddr + p.Memsz
		b, err := io.ReadAll(p.Open())
		if err != nil {
			t.Error(err)
		}
		found += string(bytes.Trim(b, "\x00"))
	}
	if want := "a\x00\x00"; next != start+size || !strings.HasPrefix(found, want) || !strings.HasSuffix(found, "bcd") {
		t.Errorf("up to %#x: %.20q", next, found)
	}
}

// narrowImage is [image] as a 32-bit file.
func narrowImage() []byte {
	h := elf.Header32{Ident: [16]byte{0x7f, 'E', 'L', 'F', 1, 1, 1}, Type: 2, Machine: 3, Version: 1, Phoff: 52, Ehsize: 52, Phentsize: 32, Phnum: 1}
	b, _ := binary.Append(nil, binary.LittleEndian, h)
	b, _ = binary.Append(b, binary.LittleEndian, elf.Prog32{Type: 1, Flags: 5, Vaddr: 0x8048000, Filesz: 256, Memsz: 256})
	code := []byte{0xf3, 0x0f, 0x1e, 0xfb, 0x8b, 0x44, 0x24, 0x04, 0x40, 0xc3} // at 84
	return append(append(b, code...), bytes.Repeat([]byte{0x90}, 256-len(b)-len(code))...)
}

// The memory of a 32-bit process is read as one.
func TestNarrow(t *testing.T) {
	const base = 0x8048000
	g := synth.New(synth.Options{})
	task := g.Add(synth.Process{PID: 7, Comm: "p", ABI: "ia32"})
	g.Add(synth.Process{PID: 8, Comm: "q"})
	page := g.Alloc(4096, 4096)
	g.Put(page, narrowImage())
	tables := g.Tables(g.Phys(g.Get(g.Get(task, "task_struct", "mm"), "mm_struct", "pgd")))
	tables.Map(base, g.Phys(page), 4096, synth.Present|synth.User)
	s := open(t, g)
	m, err := peek.Process(t.Context(), s, 7)
	if err != nil {
		t.Fatal(err)
	}
	if wide, err := peek.Process(t.Context(), s, 8); err != nil || wide.WordSize() != 8 || wide.CodeBits() != 64 {
		t.Errorf("a 64-bit process: %v", err)
	}
	var got []string
	for i, err := range m.Code(base+84, 10, m.CodeBits()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, i.Text)
	}
	if want := []string{"endbr32", "mov 0x4(%esp),%eax", "inc %eax", "ret"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q, want %q", got, want)
	}
	for w, err := range m.Words(base+4, 1) {
		if err != nil || w.Err != nil || w.Value != 0x00010101 {
			t.Errorf("%+v, %v", w, err)
		}
	}
	path := filepath.Join(t.TempDir(), "image")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if gaps, err := m.WriteImage(out, base); err != nil || len(gaps) > 0 {
		t.Errorf("%v, %v", gaps, err)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, narrowImage()) {
		t.Errorf("%v, %d bytes", err, len(b))
	}
	if _, err := m.WriteELF(t.Context(), out, []peek.Segment{{Addr: base, Size: 4096, Flags: elf.PF_R}}); err != nil {
		t.Error(err)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Class != elf.ELFCLASS32 || f.Machine != elf.EM_386 || f.Type != elf.ET_CORE || len(f.Progs) != 1 || f.Progs[0].Vaddr != base || f.Progs[0].Filesz != 4096 {
		t.Errorf("%+v", f)
	}
}

// nowhere takes what is written, and counts it.
type nowhere struct{ n int }

func (w *nowhere) WriteAt(p []byte, _ int64) (int, error) {
	if w.n += len(p); w.n > 64<<20 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

// FuzzImage takes out an image whose headers are anything.
func FuzzImage(f *testing.F) {
	g := synth.New(synth.Options{})
	m := peek.Kernel(open(f, g))
	a := g.Alloc(1<<16, 4096)
	f.Add(image())
	f.Add(narrowImage())
	f.Fuzz(func(_ *testing.T, b []byte) {
		g.Put(a, b[:min(len(b), 1<<16)])
		_, _ = m.WriteImage(&nowhere{}, a)
	})
}

// FuzzType shows types by any name, with objects at any address.
func FuzzType(f *testing.F) {
	g := synth.New(synth.Options{})
	m := peek.Kernel(open(f, g))
	f.Add("task_struct", g.Address("init_task"), 1)
	f.Add("struct mount.mnt", uint64(1<<63), 3)
	f.Fuzz(func(t *testing.T, name string, a uint64, depth int) {
		typ, err := m.Type(name)
		if err != nil {
			return
		}
		n := 0
		for range typ.Lines(depth%8, &a) {
			n++
		}
		if n > 1<<16 {
			t.Errorf("%d lines", n)
		}
	})
}
