package shell

import (
	"strconv"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// readline's HIST_ENTRY is three pointers: line, timestamp, data.
const histEntryWords = 3

// bash finds the command lines that bash remembers: in the list that its symbols lead
// to, or else in the longest list of what looks like its entries. Entries in no list come
// last, by address.
func (h *memory) bash() (found []*Entry) {
	list, count, base, how := h.bashList()
	entries, order := h.bashEntries()
	if list == 0 {
		how, base = ByShape, -1
		list, count = h.longestList(entries)
	}
	listed := map[virt.Addr]bool{}
	for i := range count {
		at, ok := h.word(list + virt.Addr(h.wordSize()*i))
		if !ok {
			break
		}
		if e := h.bashEntry(at); e != nil {
			if e.Index, e.How = base+i, how; base < 0 {
				e.Index = -1 // readline drops the oldest of a list that is full, and counts on
			}
			found, listed[at] = append(found, e), true
		}
	}
	for _, at := range order {
		if !listed[at] {
			e := entries[at]
			e.Index, e.How = -1, Stray
			found = append(found, e)
		}
	}
	return found
}

// bashEntry reads the entry at a; nil if it is none.
func (h *memory) bashEntry(a virt.Addr) *Entry {
	word := virt.Addr(h.wordSize())
	line, ok1 := h.word(a)
	stamp, ok2 := h.word(a + word)
	if !ok1 || !ok2 || a%word != 0 {
		return nil
	}
	e := &Entry{Shell: "bash", Addr: a}
	var ok bool
	if e.Command, ok = h.command(line); !ok {
		return nil
	}
	if stamp != 0 {
		if e.Time, ok = parseStamp(h.bytes(stamp)); !ok {
			return nil
		}
	}
	return e
}

// parseStamp reads a time as readline keeps it: the comment character, seconds since 1970,
// NUL. That character is "#" in bash unless histchars says another, and NUL in other programs.
func parseStamp(b []byte) (time.Time, bool) {
	const least, most = 9, 11 // digits: from 1973 to the year 5138
	if len(b) == 0 {
		return time.Time{}, false
	}
	n := 1
	for n < len(b) && n <= most+1 && b[n] >= '0' && b[n] <= '9' {
		n++
	}
	if n-1 < least || n-1 > most || n >= len(b) || b[n] != 0 {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseInt(string(b[1:n]), 10, 64)
	return time.Unix(seconds, 0).UTC(), err == nil
}

// bashEntries finds what looks like an entry: a command line beside a time.
func (h *memory) bashEntries() (entries map[virt.Addr]*Entry, order []virt.Addr) {
	entries = map[virt.Addr]*Entry{}
	stamps := map[virt.Addr]bool{}
	word := h.wordSize()
	for _, p := range h.pieces {
		for off := 0; off < len(p.b); off += word { // malloc aligns them at least so
			if p.b[off] == '#' {
				if _, ok := parseStamp(p.b[off:min(off+16, len(p.b))]); ok {
					stamps[p.at+virt.Addr(off)] = true
				}
			}
		}
	}
	if len(stamps) == 0 {
		return entries, nil
	}
	for _, p := range h.pieces {
		for off := 0; off+histEntryWords*word <= len(p.b) && len(order) < maxHistory; off += word {
			if !stamps[linux.WordIn(p.b[off+word:], word)] {
				continue
			}
			at := p.at + virt.Addr(off)
			if e := h.bashEntry(at); e != nil {
				entries[at] = e
				order = append(order, at)
			}
		}
	}
	return entries, order
}

// longestList is the longest run of pointers to entries.
func (h *memory) longestList(entries map[virt.Addr]*Entry) (list virt.Addr, count int) {
	if len(entries) == 0 {
		return 0, 0
	}
	word := h.wordSize()
	for _, p := range h.pieces {
		run := 0
		for off := 0; off+word <= len(p.b); off += word {
			if entries[linux.WordIn(p.b[off:], word)] == nil {
				run = 0
				continue
			}
			if run++; run > count {
				list, count = p.at+virt.Addr(off-word*(run-1)), run
			}
		}
	}
	return list, count
}
