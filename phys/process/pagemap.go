package process

import (
	"encoding/binary"

	"github.com/outsight-vmi/outsight/phys"
)

const (
	// Bits of an entry of /proc/PID/pagemap
	// (Documentation/admin-guide/mm/pagemap.rst).
	pagePresent = 1 << 63
	pageSwapped = 1 << 62

	// chunkPages is how many entries are looked at with one system call.
	chunkPages = 1024
)

// NextPopulated implements [phys.Populated] through /proc/PID/pagemap. Where that
// cannot be read, and for mappings of files, everything counts as populated.
func (m *Memory) NextPopulated(pa phys.Addr) (phys.Range, bool) {
	for i := range m.pieces {
		p := &m.pieces[i]
		if pa >= p.End {
			continue
		}
		from := max(pa, p.Start)
		if m.page == nil || !p.anon {
			return phys.Range{Start: from, End: p.End}, true
		}
		off := uint64(from - p.Start)
		start, n, ok := m.nextRun(p.hva+off, p.hva+p.Size())
		if ok {
			at := p.Start + phys.Addr(start-p.hva)
			return phys.Range{Start: at, End: at + phys.Addr(n)}, true
		}
	}
	return phys.Range{}, false
}

// Backed implements [phys.Prober]: reading a page that was never touched would
// map a page of zeros in the monitor.
func (m *Memory) Backed(pa phys.Addr) bool {
	p := m.find(pa)
	if p == nil {
		return false
	}
	if m.page == nil || !p.anon {
		return true
	}
	var entry [8]byte
	at := (p.hva + uint64(pa-p.Start)) / phys.PageSize
	if _, err := m.page.ReadAt(entry[:], int64(at*8)); err != nil {
		return true
	}
	return binary.LittleEndian.Uint64(entry[:])&(pagePresent|pageSwapped) != 0
}

// lookahead bounds how far one question looks, in bytes: who copies memory asks again and
// again within a gap. The page behind that counts as populated.
const lookahead = 64 << 20

// nextRun returns the first populated run in host addresses [hva, end). It cuts
// a run at the end of a chunk.
func (m *Memory) nextRun(hva, end uint64) (start, n uint64, ok bool) {
	var buf [chunkPages * 8]byte
	for at := hva &^ (phys.PageSize - 1); at < end; {
		if at > hva && at-hva >= lookahead {
			return at, min(phys.PageSize, end-at), true
		}
		pages := min(chunkPages, (end-at+phys.PageSize-1)/phys.PageSize)
		got, err := m.page.ReadAt(buf[:pages*8], int64(at/phys.PageSize*8))
		if got < 8 || err != nil && got < int(pages*8) {
			return max(at, hva), end - max(at, hva), true // unknown: all of it
		}
		run := uint64(0)
		for i := range pages {
			set := binary.LittleEndian.Uint64(buf[i*8:])&(pagePresent|pageSwapped) != 0
			if set {
				run++
			}
			if run > 0 && (!set || i == pages-1) {
				last := at + (i+1)*phys.PageSize
				if !set {
					last = at + i*phys.PageSize
				}
				start = max(last-run*phys.PageSize, hva)
				return start, min(last, end) - start, true
			}
		}
		at += pages * phys.PageSize
	}
	return 0, 0, false
}
