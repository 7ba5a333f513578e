package shell

import (
	"encoding/binary"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// busybox finds the command lines that an ash of busybox remembers. They are in its
// line_input_t: three numbers (how many there are, which is being edited, how many there
// can be), in most builds how many of them came from a file, and its name; then the
// pointers to the lines. Of several that look so, it is the one with most lines.
func (h *memory) busybox() (best []*Entry) {
	const most, least = 1 << 15, 7 // busybox makes no smaller nor larger one
	word := h.wordSize()
	head := 16 + word // with the file; without it, and with padding
	bare := (12 + word - 1) / word * word
	for _, p := range h.pieces {
		for off := head; off+word <= len(p.b); off += word {
			if linux.WordIn(p.b[off:], word) == 0 {
				continue
			}
			n := func(back int) int { return int(int32(binary.LittleEndian.Uint32(p.b[off-back:]))) }
			fits := func(count, now, room int) bool {
				return count > len(best) && count <= room && now >= 0 && now <= count && room >= least && room <= most
			}
			count, room := n(head), n(head-8)
			if !fits(count, n(head-4), room) || !h.historyFile(linux.WordIn(p.b[off-word:], word)) {
				// Built without a file.
				if count, room = n(bare), n(bare-8); !fits(count, n(bare-4), room) || bare == 16 && n(4) != 0 {
					continue
				}
			}
			// Behind the lines there is room, but for the one that is being edited.
			const behind = 8
			if end := off + word*(count+1); end+word*behind > len(p.b) || !blank(p.b[end:end+word*min(behind, room-count)]) {
				continue
			}
			if found := h.ashLines(p.b[off:], p.at+virt.Addr(off), count); found != nil {
				best = found
			}
		}
	}
	return best
}

func blank(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// historyFile reports whether a is a name of a file, or none.
func (h *memory) historyFile(a virt.Addr) bool {
	if a == 0 {
		return true
	}
	name, ok := h.command(a)
	return ok && name[0] == '/'
}

// ashLines reads count command lines whose pointers are b, at address a; nil if they
// are none.
func (h *memory) ashLines(b []byte, a virt.Addr, count int) []*Entry {
	word := h.wordSize()
	if word*count > len(b) {
		return nil
	}
	found := make([]*Entry, count)
	for i := range found {
		line, ok := h.command(linux.WordIn(b[word*i:], word))
		if !ok {
			return nil
		}
		found[i] = &Entry{Shell: "busybox", Index: i, Command: line, Addr: a + virt.Addr(word*i), How: ByShape}
	}
	return found
}
