package shell

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// zshLayout is zsh's struct histent, the same since 4.0 (2001): a node of a hash table with
// the text, and the neighbours in the ring of all lines, the older one up.
type zshLayout struct {
	text, up, down, started, finished, wordCount, number, size int
	time                                                       int // bytes of a time_t
}

var (
	zsh64      = zshLayout{text: 8, up: 24, down: 32, started: 48, finished: 56, wordCount: 72, number: 80, size: 88, time: 8}
	zsh32      = zshLayout{text: 4, up: 12, down: 16, started: 24, finished: 28, wordCount: 36, number: 40, size: 48, time: 4}
	zsh32Time8 = zshLayout{text: 4, up: 12, down: 16, started: 24, finished: 32, wordCount: 44, number: 48, size: 56, time: 8}
)

// zshLayouts are those that a zsh of that ABI can have: C libraries of i386 differ in how
// wide a time is.
func zshLayouts(abi linux.ABI) []zshLayout {
	switch abi {
	case linux.ABIIA32:
		return []zshLayout{zsh32, zsh32Time8}
	case linux.ABIX32:
		return []zshLayout{zsh32Time8}
	}
	return []zshLayout{zsh64}
}

// zshEarliest and zshLatest are what times are believed: 1987 to 4147.
const zshEarliest, zshLatest = 1 << 29, 1 << 36

// zsh finds the command lines that zsh remembers: on the ring that its symbols lead to, or
// else on the longest ring of what looks like its entries. The line that is being typed
// stands on the ring too, as one without text.
func (h *memory) zsh() []*Entry {
	ring, how := h.zshRing(), BySymbol
	var found []*Entry
	for _, o := range zshLayouts(h.abi) {
		if ring != 0 && len(found) == 0 {
			found = h.zshWalk(&o, ring, nil)
		}
	}
	if len(found) == 0 {
		how = ByShape
		for _, o := range zshLayouts(h.abi) {
			if r := h.longestRing(&o); len(r) > len(found) {
				found = r
			}
		}
	}
	slices.SortFunc(found, func(a, b *Entry) int { return cmp.Compare(a.Index, b.Index) })
	for _, e := range found {
		e.How = how
	}
	return found
}

// longestRing is the longest ring of what looks like entries of that layout.
func (h *memory) longestRing(o *zshLayout) (found []*Entry) {
	seen := map[virt.Addr]bool{}
	for _, p := range h.pieces {
		for off := 0; off+o.size <= len(p.b); off += h.wordSize() {
			at := p.at + virt.Addr(off)
			if started := o.stamp(p.b[off+o.started:]); started < zshEarliest || started > zshLatest {
				continue // most words are none: look no further
			}
			if seen[at] || h.zshEntry(o, at) == nil {
				continue
			}
			if r := h.zshWalk(o, at, seen); len(r) > len(found) {
				found = r
			}
		}
	}
	return found
}

// stamp is the time at the beginning of b.
func (o *zshLayout) stamp(b []byte) uint64 { return uint64(linux.WordIn(b, o.time)) }

// zshRing is where the newest entry lies, by the symbol hist_ring, which zsh exports to
// its modules; 0 where that is unavailable.
func (h *memory) zshRing() (ring virt.Addr) {
	variable, err := h.exported("hist_ring")
	if err != nil {
		return 0 // it is looked for by its shape
	}
	ring, _ = h.load(variable)
	return ring
}

// zshWalk follows the ring that at is on, and notes in seen what is on it. Every element
// must be its neighbour's neighbour; a ring that is not whole is followed both ways.
func (h *memory) zshWalk(o *zshLayout, at virt.Addr, seen map[virt.Addr]bool) (found []*Entry) {
	here := map[virt.Addr]bool{}
	align := virt.Addr(h.wordSize())
	walk := func(there, back virt.Addr) {
		for e := at; len(here) < maxHistory; {
			if here[e] && e != at {
				return
			}
			if !here[e] {
				here[e] = true
				if seen != nil {
					seen[e] = true
				}
				if one := h.zshEntry(o, e); one != nil {
					found = append(found, one)
				}
			}
			next, ok := h.word(e + there)
			if !ok || next == at || next%align != 0 {
				return
			}
			if again, ok := h.word(next + back); !ok || again != e {
				return
			}
			e = next
		}
	}
	up, down := virt.Addr(o.up), virt.Addr(o.down)
	walk(down, up)
	walk(up, down)
	return found
}

// zshEntry reads the entry at a; nil if it is none.
func (h *memory) zshEntry(o *zshLayout, a virt.Addr) *Entry {
	b := h.bytes(a)
	if size := h.wordSize(); len(b) < o.size || a%virt.Addr(size) != 0 {
		return nil
	}
	word := func(off int) virt.Addr { return linux.WordIn(b[off:], h.wordSize()) }
	up, down := word(o.up), word(o.down)
	number, started := binary.LittleEndian.Uint64(b[o.number:]), o.stamp(b[o.started:])
	words := int32(binary.LittleEndian.Uint32(b[o.wordCount:]))
	if number == 0 || number > 1<<31 || started < zshEarliest || started > zshLatest || o.stamp(b[o.finished:]) > zshLatest || words < 0 || words > maxCommand {
		return nil
	}
	if again, ok := h.word(up + virt.Addr(o.down)); !ok || again != a {
		return nil
	}
	if again, ok := h.word(down + virt.Addr(o.up)); !ok || again != a {
		return nil
	}
	text, ok := h.command(word(o.text))
	if !ok {
		return nil
	}
	return &Entry{Shell: "zsh", Index: int(number), Time: time.Unix(int64(started), 0).UTC(), Command: unmetafy(text), Addr: a}
}

// unmetafy undoes zsh's form of bytes that mean something to itself: Meta, and the byte
// with bit 5 turned over.
func unmetafy(text string) string {
	const meta, flip = 0x83, 32
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == meta && i+1 < len(text) {
			i++
			c = text[i] ^ flip
		}
		out = append(out, c)
	}
	return string(out)
}
