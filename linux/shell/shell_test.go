package shell

import (
	"encoding/binary"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// shellHeap is the heap of a shell, written by hand from its start.
type shellHeap struct {
	memory
	b    []byte
	used int
}

const heapStart = 0x5500_0000

// abis are those that shells can have.
var abis = []linux.ABI{linux.ABI64, linux.ABIIA32, linux.ABIX32}

func newHeap(abi linux.ABI) *shellHeap {
	h := &shellHeap{b: make([]byte, 8192), used: 64}
	h.left, h.abi = maxMemory, abi
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
	size := h.wordSize()
	for i, v := range w {
		h.put(at+size*i, size, v)
	}
	h.used += (size*len(w) + 8 + 15) &^ 15
	return heapStart + uint64(at)
}

func (h *shellHeap) put(at, size int, v uint64) {
	if size == 4 {
		binary.LittleEndian.PutUint32(h.b[at:], uint32(v))
	} else {
		binary.LittleEndian.PutUint64(h.b[at:], v)
	}
}

// numbers writes numbers of four bytes, and words behind them.
func (h *shellHeap) numbers(numbers []uint32, words ...uint64) uint64 {
	at := h.used
	for i, v := range numbers {
		h.put(at+4*i, 4, uint64(v))
	}
	h.used += 4 * len(numbers)
	h.words(words...)
	return heapStart + uint64(at)
}

// lines are what was found, in short.
func lines(found []*Entry) (all []Entry) {
	for _, e := range found {
		c := *e
		c.Addr = 0
		all = append(all, c)
	}
	return all
}

// zshRing writes a ring of zsh's: the entries from the oldest on, and perhaps the line that
// is being typed, which has no text.
func (h *shellHeap) zshRing(o zshLayout, typing bool, commands ...string) (at []int) {
	entry := func(number int, text, started uint64) {
		e := h.used
		h.used += (o.size + 15) &^ 15
		h.put(e+o.text, h.wordSize(), text)
		h.put(e+o.started, o.time, started)
		h.put(e+o.number, 8, uint64(number))
		at = append(at, e)
	}
	for i, c := range commands {
		entry(i+1, h.text(c), 1795496586+uint64(i))
	}
	if typing {
		entry(len(commands)+1, 0, 0)
	}
	for i, e := range at {
		next := at[(i+1)%len(at)]
		h.put(e+o.down, h.wordSize(), heapStart+uint64(next))
		h.put(next+o.up, h.wordSize(), heapStart+uint64(e))
	}
	return at
}

func TestHistoryZsh(t *testing.T) {
	for _, abi := range abis {
		for _, o := range zshLayouts(abi) {
			for _, typing := range []bool{false, true} {
				testHistoryZsh(t, abi, o, typing)
			}
		}
		if got := newHeap(abi).zsh(); got != nil {
			t.Errorf("an empty heap: %+v", got)
		}
	}
}

func testHistoryZsh(t *testing.T, abi linux.ABI, o zshLayout, typing bool) {
	t.Helper()
	h := newHeap(abi)
	h.zshRing(o, false, "a shorter one")
	at := h.zshRing(o, typing, "id", "echo \x83\xa3", "for i in 1\ndo :\ndone")
	stamp := time.Unix(1795496586, 0).UTC()
	want := []Entry{
		{Shell: "zsh", Index: 1, Time: stamp, Command: "id", How: ByShape},
		{Shell: "zsh", Index: 2, Time: stamp.Add(time.Second), Command: "echo \x83", How: ByShape},
		{Shell: "zsh", Index: 3, Time: stamp.Add(2 * time.Second), Command: "for i in 1\ndo :\ndone", How: ByShape},
	}
	if got := lines(h.zsh()); !reflect.DeepEqual(got, want) {
		t.Errorf("%s %+v, typing %v: %+v, want %+v", abi, o, typing, got, want)
	}
	// A neighbour that does not know it: both parts of the ring are found.
	h.put(at[0]+o.up, h.wordSize(), 0x1234)
	if got := h.zsh(); len(got) == 0 {
		t.Errorf("%s: a broken ring has nothing", abi)
	}
}

func TestHistoryBash(t *testing.T) {
	for _, abi := range abis {
		h := newHeap(abi)
		entry := func(line, stamp string) uint64 { return h.words(h.text(line), h.text(stamp), 0) }
		gone := entry("rm -rf ~/.ssh", "#1795496000")
		first, second := entry("id", "#1795496586"), entry("cat <<E\nx\nE", "#1795496590")
		entry("not a time", "#17954965x6")
		h.words(first) // a pointer to one of them elsewhere
		h.words(first, second, 0)
		at := time.Unix(1795496586, 0).UTC()
		// How many were dropped before the first is not known.
		want := []Entry{
			{Shell: "bash", Index: -1, Time: at, Command: "id", How: ByShape},
			{Shell: "bash", Index: -1, Time: at.Add(4 * time.Second), Command: "cat <<E\nx\nE", How: ByShape},
			{Shell: "bash", Index: -1, Time: at.Add(-586 * time.Second), Command: "rm -rf ~/.ssh", How: Stray},
		}
		found := h.bash()
		if got := lines(found); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v", abi, got)
		}
		if len(found) == 3 && found[2].Addr != virt.Addr(gone) {
			t.Errorf("%s: the stray one at %#x", abi, uint64(found[2].Addr))
		}
		if got := newHeap(abi).bash(); len(got) != 0 {
			t.Errorf("%s: of nothing: %+v", abi, got)
		}
	}
}

func TestHistoryBusybox(t *testing.T) {
	for _, abi := range abis {
		for _, file := range []bool{false, true} {
			h := newHeap(abi)
			lines1 := make([]uint64, 20)
			lines1[0], lines1[1], lines1[2] = h.text("ls"), h.text("wget http://x/y"), h.text("being edited")
			head := []uint32{2, 1, 255} // of lines, the one that is edited, room
			if file {
				head, lines1 = append(head, 0), slices.Insert(lines1, 0, h.text("/root/.ash_history"))
			} else if h.wordSize() == 8 {
				head = append(head, 0) // padding
			}
			h.words(1|1<<32, h.text("x")) // one line, by chance
			h.numbers(head, lines1...)
			want := []Entry{
				{Shell: "busybox", Index: 0, Command: "ls", How: ByShape},
				{Shell: "busybox", Index: 1, Command: "wget http://x/y", How: ByShape},
			}
			if got := lines(h.busybox()); !reflect.DeepEqual(got, want) {
				t.Errorf("%s, with a file %v: %+v", abi, file, got)
			}
		}
	}
}

func TestShellName(t *testing.T) {
	for name, want := range map[string]bool{
		"bash": true, "-bash": true, "bash-static": true, "zsh5-static": true, "zsh-5.9": true, "busybox.nosuid": true, "sh": true, "ash": true,
		"sshd": false, "bashful": false, "shadow": false, "": false, "-": false,
	} {
		if got := shellName(name); got != want {
			t.Errorf("%q: %v", name, got)
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
		if got, ok := returnedVariable([]byte(code), 0x1000, "\x48\x8b\x05"); got != want || ok != (want != 0) {
			t.Errorf("% x: %#x, %v", code, uint64(got), ok)
		}
	}
	for code, want := range map[string]virt.Addr{
		"\xa1\x78\x56\x34\x12\xc3": 0x12345678,
		// As of libreadline 8.2 for i386.
		"\xe8\xf8\x54\xf3\xff\x05\x5f\xa1\x06\x00\x8b\x80\xf4\xef\x00\x00\xc3":                 0xee945 + 0x6a15f + 0xeff4,
		"\xf3\x0f\x1e\xfb\xe8\xf8\x54\xf3\xff\x05\x5f\xa1\x06\x00\x8b\x80\xf4\xef\x00\x00\xc3": 0xee949 + 0x6a15f + 0xeff4,
		"\xe8\xf7\x54\xf3\xff\x05\x5f\xa1\x06\x00\x8b\x80\xf4\xef\x00\x00\xc3":                 0, // calls something else
		"\xa1\x78\x56\x34\x12\x90": 0, "": 0,
	} {
		isThunk := func(a virt.Addr) bool { return a == 0x23e3d || a == 0x23e41 }
		if got, ok := returnedVariable32([]byte(code), 0xee940, isThunk); got != want || ok != (want != 0) {
			t.Errorf("% x: %#x, %v", code, uint64(got), ok)
		}
	}
}

// TestHistoryGet finds the variables of readline in its code, as compiled in Debian's bash-static
// 5.2 for amd64 and bash 5.2 for i386.
func TestHistoryGet(t *testing.T) {
	const noise = "\x2b\x3d\x47\x28\x23\x00\x89\x3d\x31\xe2\x23\x00" // another subtraction
	tail := strings.Repeat("\x90", 64)
	for _, c := range []struct {
		abi  linux.ABI
		at   virt.Addr
		code string
		want variables
	}{
		{
			linux.ABI64, 0x4c1e24, "\x2b\x3d\x36\xf7\x18\x00\x39\x3d\xc0\xc7\x19\x00\x7e\x1e\x85\xff\x78\x1a\x48\x8b\x05\xcb\xc7\x19\x00",
			variables{base: 0x651560, length: 0x65e5f0, list: 0x65e608},
		},
		{
			linux.ABIIA32, 0xeea10, "\xe8\x30\x46\xf3\xff\x81\xc2\x8f\xa0\x06\x00\x8b\x44\x24\x04\x2b\x82\x20\x4b\x00\x00\x39\x82\xdc\xef\x00\x00" +
				"\x7e\x1b\x85\xc0\x78\x17\x8b\x92\xf4\xef\x00\x00",
			variables{base: 0x15d5c4, length: 0x167a80, list: 0x158aa4 + 0xeff4},
		},
		{
			linux.ABIIA32, 0x8048000, "\x8b\x44\x24\x04\x2b\x05\x00\x10\x00\x00\x39\x05\x00\x20\x00\x00\x7e\x1b\x85\xc0\x78\x17\x8b\x15\x00\x30\x00\x00",
			variables{base: 0x1000, length: 0x2000, list: 0x3000},
		},
	} {
		got, ok := historyGet([]byte(noise+c.code+tail), c.at-virt.Addr(len(noise)), c.abi)
		if !ok || got != c.want {
			t.Errorf("%s: %+v, %v", c.abi, got, ok)
		}
		if got, ok := historyGet([]byte(c.code[:len(c.code)-5]+tail), c.at, c.abi); ok {
			t.Errorf("%s: %+v without the list", c.abi, got)
		}
	}
}

func FuzzHistory(f *testing.F) {
	for i, abi := range abis {
		h := newHeap(abi)
		e := h.words(h.text("id"), h.text("#1795496586"), 0)
		h.words(e, 0)
		h.words(append([]uint64{1 | 1<<32, 99, 0, h.text("ls")}, make([]uint64, 16)...)...)
		h.zshRing(zshLayouts(abi)[0], true, "id", "ls")
		f.Add(h.b, byte(i))
	}
	f.Fuzz(func(t *testing.T, b []byte, which byte) {
		abi := abis[int(which)%len(abis)]
		h := &memory{left: 1 << 16, abi: abi}
		h.add(heapStart, b)
		for _, e := range slices.Concat(h.bash(), h.zsh(), h.busybox()) {
			if e.Command == "" || e.Index < -1 {
				t.Errorf("%+v", e)
			}
		}
		_, _ = parseStamp(b)
		_, _ = returnedVariable(b, heapStart, "\x48\x8b\x05")
		_, _ = returnedVariable32(b, heapStart, func(virt.Addr) bool { return true })
		_, _ = historyGet(b, heapStart, abi)
	})
}

// Text without an end that everything points at costs no more than the budget.
func TestHistoryHostile(t *testing.T) {
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = 'x'
	}
	h := &memory{left: 1 << 20}
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
