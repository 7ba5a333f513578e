package linux

import (
	"debug/elf"
	"encoding/binary"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// shellHeap is the heap of a shell, written by hand from its start.
type shellHeap struct {
	shellMemory
	b    []byte
	used int
}

const heapStart = 0x55_0000_0000

func newHeap() *shellHeap {
	h := &shellHeap{b: make([]byte, 8192), used: 64}
	h.left = maxShellMemory
	h.add(heapStart, h.b)
	return h
}

func (h *shellHeap) text(s string) uint64 {
	at := h.used
	copy(h.b[at:], s)
	h.used += (len(s) + 16) &^ 15
	return heapStart + uint64(at)
}

func (h *shellHeap) words(w ...uint64) uint64 {
	at := h.used
	for i, v := range w {
		binary.LittleEndian.PutUint64(h.b[at+8*i:], v)
	}
	h.used += 8*len(w) + 8
	return heapStart + uint64(at)
}

// lines are what was found, in short.
func lines(found []*HistoryEntry) (all []HistoryEntry) {
	for _, e := range found {
		c := *e
		c.Addr = 0
		all = append(all, c)
	}
	return all
}

// zshRing writes a ring of zsh's: the entries from the oldest on, and perhaps the line that
// is being typed, which has no text.
func (h *shellHeap) zshRing(typing bool, commands ...string) (at []uint64) {
	for i, c := range commands {
		at = append(at, h.words(0, h.text(c), 0, 0, 0, 0, 1795496586+uint64(i), 0, 0, 1, uint64(i+1)))
	}
	if typing {
		at = append(at, h.words(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, uint64(len(commands)+1)))
	}
	for i, a := range at {
		next := at[(i+1)%len(at)]
		binary.LittleEndian.PutUint64(h.b[a-heapStart+zshDown:], next)
		binary.LittleEndian.PutUint64(h.b[next-heapStart+zshUp:], a)
	}
	return at
}

func TestHistoryZsh(t *testing.T) {
	for _, typing := range []bool{false, true} {
		h := newHeap()
		h.zshRing(false, "a shorter one")
		at := h.zshRing(typing, "id", "echo \x83\xa3", "for i in 1\ndo :\ndone")
		stamp := time.Unix(1795496586, 0).UTC()
		want := []HistoryEntry{
			{Shell: "zsh", Index: 1, Time: stamp, Command: "id", How: HistoryByShape},
			{Shell: "zsh", Index: 2, Time: stamp.Add(time.Second), Command: "echo \x83", How: HistoryByShape},
			{Shell: "zsh", Index: 3, Time: stamp.Add(2 * time.Second), Command: "for i in 1\ndo :\ndone", How: HistoryByShape},
		}
		if got := lines(h.zsh()); !reflect.DeepEqual(got, want) {
			t.Errorf("typing %v: %+v, want %+v", typing, got, want)
		}
		// A neighbour that does not know it: both parts of the ring are found.
		binary.LittleEndian.PutUint64(h.b[at[0]-heapStart+zshUp:], 0x1234)
		if got := h.zsh(); len(got) == 0 {
			t.Error("a broken ring has nothing")
		}
	}
	if got := newHeap().zsh(); got != nil {
		t.Errorf("an empty heap: %+v", got)
	}
}

func TestHistoryBash(t *testing.T) {
	h := newHeap()
	entry := func(line, stamp string) uint64 { return h.words(h.text(line), h.text(stamp), 0) }
	gone := entry("rm -rf ~/.ssh", "#1795496000")
	first, second := entry("id", "#1795496586"), entry("cat <<E\nx\nE", "#1795496590")
	entry("not a time", "#17954965x6")
	h.words(first) // a pointer to one of them elsewhere
	h.words(first, second, 0)
	at := time.Unix(1795496586, 0).UTC()
	want := []HistoryEntry{
		{Shell: "bash", Index: 1, Time: at, Command: "id", How: HistoryByShape},
		{Shell: "bash", Index: 2, Time: at.Add(4 * time.Second), Command: "cat <<E\nx\nE", How: HistoryByShape},
		{Shell: "bash", Index: -1, Time: at.Add(-586 * time.Second), Command: "rm -rf ~/.ssh", How: HistoryStray},
	}
	found := h.bash()
	if got := lines(found); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if len(found) == 3 && found[2].Addr != virt.Addr(gone) {
		t.Errorf("the stray one at %#x", uint64(found[2].Addr))
	}
	if got := newHeap().bash(); len(got) != 0 {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestHistoryBusybox(t *testing.T) {
	for name, head := range map[string][]uint64{
		"with a file":          {2 | 2<<32, 255 | 0<<32, 0},
		"without that feature": {2 | 1<<32, 255},
	} {
		h := newHeap()
		if name == "with a file" {
			head[2] = h.text("/root/.ash_history")
		}
		h.words(1|1<<32, h.text("x")) // one line, by chance
		rest := make([]uint64, 20)
		rest[0], rest[1], rest[2] = h.text("ls"), h.text("wget http://x/y"), h.text("being edited")
		h.words(append(head, rest...)...)
		want := []HistoryEntry{
			{Shell: "busybox", Index: 0, Command: "ls", How: HistoryByShape},
			{Shell: "busybox", Index: 1, Command: "wget http://x/y", How: HistoryByShape},
		}
		if got := lines(h.busybox()); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestReturnedVariable(t *testing.T) {
	for code, want := range map[string]virt.Addr{
		"\x48\x8b\x05\x10\x00\x00\x00\xc3":                 0x1017,
		"\xf3\x0f\x1e\xfa\x48\x8b\x05\xf0\xff\xff\xff\xc3": 0x1000 + 4 + 7 - 16,
		"\x48\x8b\x05\x10\x00\x00\x00\x90":                 0,
		"\x31\xc0\xc3":                                     0, "": 0,
	} {
		if got, ok := returnedVariable([]byte(code), 0x1000); got != want || ok != (want != 0) {
			t.Errorf("% x: %#x, %v", code, uint64(got), ok)
		}
	}
}

func FuzzHistory(f *testing.F) {
	h := newHeap()
	e := h.words(h.text("id"), h.text("#1795496586"), 0)
	h.words(e, 0)
	h.words(append([]uint64{1 | 1<<32, 99, 0, h.text("ls")}, make([]uint64, 16)...)...)
	h.zshRing(true, "id", "ls")
	f.Add(h.b)
	f.Fuzz(func(t *testing.T, b []byte) {
		h := &shellMemory{left: 1 << 16}
		h.add(heapStart, b)
		for _, e := range slices.Concat(h.bash(), h.zsh(), h.busybox()) {
			if e.Command == "" || e.Index < -1 {
				t.Errorf("%+v", e)
			}
		}
		_, _ = parseStamp(b)
		_, _ = returnedVariable(b, heapStart)
	})
}

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

func TestDynamicSymbol(t *testing.T) {
	space, base := dynamicProgram(t, nil)
	d, err := openDynamic(space, base)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := d.symbol("history_list"); err != nil || a != base+0x123 {
		t.Errorf("%#x, %v", uint64(a), err)
	}
	if a, err := d.symbol("history_length"); err == nil {
		t.Errorf("found what is not there at %#x", uint64(a))
	}
	space, base = dynamicProgram(t, func(b []byte) {
		for i := 0x700; i < 0x740; i++ {
			b[i] = 0xff
		}
	})
	if d, err = openDynamic(space, base); err != nil {
		t.Fatal(err)
	}
	if _, err := d.symbol("history_list"); err == nil {
		t.Error("a table of four billion buckets is believed")
	}
}

// Text without an end that everything points at costs no more than the budget.
func TestHistoryHostile(t *testing.T) {
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = 'x'
	}
	h := &shellMemory{left: 1 << 20}
	head := []uint64{30000 | 1<<32, 30000, 0}
	for off := 0; off+64 <= len(b)/2; off += 32 {
		for i, v := range append(head, heapStart+uint64(len(b)/2)) {
			binary.LittleEndian.PutUint64(b[off+8*i:], v)
		}
	}
	h.add(heapStart, b)
	if found := append(h.bash(), h.busybox()...); len(found) != 0 {
		t.Errorf("%d lines", len(found))
	}
	if h.left >= 0 {
		t.Errorf("%d bytes of the budget are left", h.left)
	}
}
