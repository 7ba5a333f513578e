package linux

import (
	"encoding/binary"
	"strconv"
	"time"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// histEntry is readline's HIST_ENTRY: line, timestamp, data.
const (
	histLine, histTime, histEntrySize = 0, 8, 24
)

// bash finds the command lines that bash remembers: in the list that its symbols lead
// to, or else in the longest list of what looks like its entries. Entries in no list come
// last, by address.
func (h *shellMemory) bash() (found []*HistoryEntry) {
	list, count, base, how := h.bashList()
	entries, order := h.bashEntries()
	if list == 0 {
		how, base = HistoryByShape, 1
		list, count = h.longestList(entries)
	}
	listed := map[virt.Addr]bool{}
	for i := range count {
		at, ok := h.word(list + virt.Addr(8*i))
		if !ok {
			break
		}
		if e := h.bashEntry(at); e != nil {
			e.Index, e.How = base+i, how
			found, listed[at] = append(found, e), true
		}
	}
	for _, at := range order {
		if !listed[at] {
			e := entries[at]
			e.Index, e.How = -1, HistoryStray
			found = append(found, e)
		}
	}
	return found
}

// bashEntry reads the entry at a; nil if it is none.
func (h *shellMemory) bashEntry(a virt.Addr) *HistoryEntry {
	line, ok1 := h.word(a + histLine)
	stamp, ok2 := h.word(a + histTime)
	if !ok1 || !ok2 || a%8 != 0 {
		return nil
	}
	e := &HistoryEntry{Shell: "bash", Addr: a}
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

// parseStamp reads a time as readline keeps it: "#", seconds since 1970, NUL.
func parseStamp(b []byte) (time.Time, bool) {
	const least, most = 9, 11 // digits: from 1973 to the year 5138
	if len(b) == 0 || b[0] != '#' {
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
func (h *shellMemory) bashEntries() (entries map[virt.Addr]*HistoryEntry, order []virt.Addr) {
	entries = map[virt.Addr]*HistoryEntry{}
	stamps := map[virt.Addr]bool{}
	for _, p := range h.pieces {
		for off := 0; off < len(p.b); off += 8 { // as malloc aligns them
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
		for off := 0; off+histEntrySize <= len(p.b) && len(order) < maxHistory; off += 8 {
			if !stamps[virt.Addr(binary.LittleEndian.Uint64(p.b[off+histTime:]))] {
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
func (h *shellMemory) longestList(entries map[virt.Addr]*HistoryEntry) (list virt.Addr, count int) {
	if len(entries) == 0 {
		return 0, 0
	}
	for _, p := range h.pieces {
		run := 0
		for off := 0; off+8 <= len(p.b); off += 8 {
			if entries[virt.Addr(binary.LittleEndian.Uint64(p.b[off:]))] == nil {
				run = 0
				continue
			}
			if run++; run > count {
				list, count = p.at+virt.Addr(off-8*(run-1)), run
			}
		}
	}
	return list, count
}

// bashList finds the list by the symbols that bash exports: history_list is a function
// that returns it, history_length says how long it is, history_base how it is numbered.
func (h *shellMemory) bashList() (list virt.Addr, count, base int, how HistorySource) {
	if h.program == 0 {
		return 0, 0, 0, ""
	}
	_ = kobj.Safely(func() error { // what cannot be read is looked for by its shape
		d, err := openDynamic(h.files, h.program)
		if err != nil {
			return err
		}
		code, err1 := d.symbol("history_list")
		length, err2 := d.symbol("history_length")
		first, err3 := d.symbol("history_base")
		if err1 != nil || err2 != nil || err3 != nil {
			return err1
		}
		var b [16]byte
		if _, err := h.files.ReadAt(b[:], code); err != nil {
			return err
		}
		variable, ok := returnedVariable(b[:], code)
		if !ok {
			return nil
		}
		at, err := h.space.U64(variable)
		if err != nil {
			return err
		}
		n, err := h.space.U32(length)
		if err != nil {
			return err
		}
		from, err := h.space.U32(first)
		if err != nil || at == 0 || n == 0 || n > maxHistory {
			return err
		}
		list, count, base, how = virt.Addr(at), int(n), int(int32(from)), HistoryBySymbol
		return nil
	})
	return list, count, base, how
}

// returnedVariable is the variable whose value a function at a returns, if that is all
// that its code does: mov variable(%rip), %rax; ret.
func returnedVariable(code []byte, a virt.Addr) (virt.Addr, bool) {
	const endbr, mov, ret = "\xf3\x0f\x1e\xfa", "\x48\x8b\x05", 0xc3
	if len(code) >= 4 && string(code[:4]) == endbr {
		code, a = code[4:], a+4
	}
	if len(code) < 8 || string(code[:3]) != mov || code[7] != ret {
		return 0, false
	}
	return a + 7 + virt.Addr(int64(int32(binary.LittleEndian.Uint32(code[3:])))), true
}
