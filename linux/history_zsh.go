package linux

import (
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// histEnt is zsh's struct histent, the same since 4.0 (2001): a node of a hash table with
// the text, and the neighbours in the ring of all lines, the older one up.
const (
	zshText, zshFlags, zshUp, zshDown                          = 8, 16, 24, 32
	zshStarted, zshFinished, zshWords, zshWordCount, zshNumber = 48, 56, 64, 72, 80
	zshEntrySize                                               = 88
)

// zshEarliest and zshLatest are what times are believed: 1987 to 4147.
const zshEarliest, zshLatest = 1 << 29, 1 << 36

// zsh finds the command lines that zsh remembers: on the ring that its symbols lead to, or
// else on the longest ring of what looks like its entries. The line that is being typed
// stands on the ring too, as one without text.
func (h *shellMemory) zsh() []*HistoryEntry {
	ring, how := h.zshRing(), HistoryBySymbol
	var found []*HistoryEntry
	if ring != 0 {
		found = h.zshWalk(ring, nil)
	}
	if len(found) == 0 {
		how = HistoryByShape
		seen := map[virt.Addr]bool{}
		for _, p := range h.pieces {
			for off := 0; off+zshEntrySize <= len(p.b); off += 8 {
				at := p.at + virt.Addr(off)
				if started := binary.LittleEndian.Uint64(p.b[off+zshStarted:]); started < zshEarliest || started > zshLatest {
					continue // most words are none: look no further
				}
				if seen[at] || h.zshEntry(at) == nil {
					continue
				}
				if r := h.zshWalk(at, seen); len(r) > len(found) {
					found = r
				}
			}
		}
	}
	slices.SortFunc(found, func(a, b *HistoryEntry) int { return cmp.Compare(a.Index, b.Index) })
	for _, e := range found {
		e.How = how
	}
	return found
}

// zshRing is where the newest entry lies, by the symbol hist_ring, which zsh exports to
// its modules; 0 where that is not to be had.
func (h *shellMemory) zshRing() (ring virt.Addr) {
	if h.program == 0 {
		return 0
	}
	_ = kobj.Safely(func() error { // what cannot be read is looked for by its shape
		d, err := openDynamic(h.files, h.program)
		if err != nil {
			return err
		}
		variable, err := d.symbol("hist_ring")
		if err != nil {
			return err
		}
		v, err := h.space.U64(variable)
		ring = virt.Addr(v)
		return err
	})
	return ring
}

// zshWalk follows the ring that at is on, and notes in seen what is on it. Every element
// must be its neighbour's neighbour; a ring that is not whole is followed both ways.
func (h *shellMemory) zshWalk(at virt.Addr, seen map[virt.Addr]bool) (found []*HistoryEntry) {
	here := map[virt.Addr]bool{}
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
				if one := h.zshEntry(e); one != nil {
					found = append(found, one)
				}
			}
			next, ok := h.word(e + there)
			if !ok || next == at || next%8 != 0 {
				return
			}
			if again, ok := h.word(next + back); !ok || again != e {
				return
			}
			e = next
		}
	}
	walk(zshDown, zshUp)
	walk(zshUp, zshDown)
	return found
}

// zshEntry reads the entry at a; nil if it is none.
func (h *shellMemory) zshEntry(a virt.Addr) *HistoryEntry {
	b := h.bytes(a)
	if len(b) < zshEntrySize || a%8 != 0 {
		return nil
	}
	word := func(off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }
	up, down := virt.Addr(word(zshUp)), virt.Addr(word(zshDown))
	number, started := word(zshNumber), word(zshStarted)
	words := int32(binary.LittleEndian.Uint32(b[zshWordCount:]))
	if number == 0 || number > 1<<31 || started < zshEarliest || started > zshLatest || word(zshFinished) > zshLatest || words < 0 || words > maxCommand {
		return nil
	}
	if again, ok := h.word(up + zshDown); !ok || again != a {
		return nil
	}
	if again, ok := h.word(down + zshUp); !ok || again != a {
		return nil
	}
	text, ok := h.command(virt.Addr(word(zshText)))
	if !ok {
		return nil
	}
	return &HistoryEntry{Shell: "zsh", Index: int(number), Time: time.Unix(int64(started), 0).UTC(), Command: unmetafy(text), Addr: a}
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
