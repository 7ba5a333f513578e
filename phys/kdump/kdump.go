// Package kdump reads compressed dumps as makedumpfile and QEMU write them
// ("KDUMP   ", also called diskdump): each page packed on its own with zlib, lzo,
// snappy or zstd, behind bitmaps that say which pages exist and which were kept.
// Opening one reads the headers and bitmaps only; a page is unpacked when it is
// asked for.
//
// makedumpfile can leave pages out. What a page held that was left out is not
// known, so reading it is [ErrExcluded], unless zero pages are all that the dump
// was asked to leave out. A dump that is incomplete is read as far as it goes.
package kdump

import (
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/file"
	"github.com/outsight-vmi/outsight/phys/note"
)

// ErrExcluded says that a page exists but was left out when the dump was written.
// It is a kind of [phys.ErrNotPresent].
var ErrExcluded = fmt.Errorf("%w: the dump leaves this page out (makedumpfile -d)", phys.ErrNotPresent)

const (
	pageSize  = phys.PageSize
	cacheSize = 8 << 20
	maxPages  = 1 << 36 // 48 bits of addresses
	maxNotes  = 16 << 20
	// rankEvery is how many pages one entry of the rank index covers.
	rankEvery = 1 << 12

	excludeZero = 1 // dump level: leave zero pages out
)

// Memory is a machine's memory in a kdump file.
type Memory struct {
	src      file.Source
	exists   bitmap // which pages the machine has
	kept     bitmap // which of them the dump has
	rank     []uint64
	descs    uint64 // offset of the page descriptors
	ranges   []phys.Range
	zeros    bool   // pages left out are zeros
	zeroPage uint64 // offset of the page that all zero pages share; 0: not known
	cache    *file.Cache
	unpacked atomic.Uint64
	notes    []byte
	info     []byte
	packing  string
	level    uint32
	data     uint64 // offset behind the page descriptors
	lost     uint64 // pages that should be in the file and are not

	incomplete bool // says the header
	machine    string
	warnings   []string
}

// New reads the headers of src, which the Memory takes over.
func New(src file.Source) (*Memory, error) {
	h, err := readHeader(src)
	if err != nil {
		return nil, err
	}
	m := &Memory{src: src, descs: h.descs, level: h.level, zeros: h.level == excludeZero, incomplete: h.incomplete, machine: h.machine}
	count, err := m.readBitmaps(h)
	if err != nil {
		return nil, err
	}
	m.info = m.part("VMCOREINFO", h.infoOffset, h.infoSize)
	m.notes = m.part("notes", h.noteOffset, h.noteSize)
	m.cache = file.NewCache(cacheSize, pageSize, m.unpack)
	if err := m.lookAtFirst(); err != nil {
		return nil, err
	}
	return m, m.findLost(count)
}

// part reads what the header says lies beside memory; nil: it is not there, which does
// not keep memory from being read.
func (m *Memory) part(what string, offset, size uint64) []byte {
	if size == 0 {
		return nil
	}
	b := make([]byte, min(size, maxNotes))
	if err := file.ReadFull(m.src, b, offset); err != nil || size > maxNotes {
		m.warnings = append(m.warnings, fmt.Sprintf("the kdump file has no %s where its header says (%d bytes at offset %#x)", what, size, offset))
		return nil
	}
	return b
}

// Notes say what in the headers did not hold.
func (m *Memory) Notes() []string {
	if m.incomplete && m.lost == 0 {
		return append(m.warnings, "the kdump file says that it is incomplete, but has all of its pages")
	}
	return m.warnings
}

// Foreign is the architecture that the header names where it is not x86-64, else "".
// Memory decides: QEMU and makedumpfile were seen to write others.
func (m *Memory) Foreign() string {
	switch m.machine {
	case "", "x86_64", "Unknown":
		return ""
	}
	return fmt.Sprintf("%q", m.machine)
}

// readBitmaps reads the two bitmaps, each half of their blocks: which pages exist,
// and which are in the dump. It returns how many those are.
func (m *Memory) readBitmaps(h *header) (count uint64, err error) {
	half := h.bitmapSize / 2
	if size := m.src.Size(); h.bitmaps > size || h.bitmapSize > size-h.bitmaps {
		return 0, fmt.Errorf("the kdump file was cut off in its bitmaps: %w", phys.ErrGone)
	}
	if h.pages == 0 || (h.pages+7)/8 > half {
		m.warnings = append(m.warnings, fmt.Sprintf("the kdump file says that it has %d pages, and has bitmaps for %d", h.pages, half*8))
		h.pages = half * 8
	}
	need := (h.pages + 7) / 8
	read := func(off uint64) (bitmap, error) {
		b := make(bitmap, (need+7)&^7)
		err := file.ReadFull(m.src, b[:need], off)
		b.clearFrom(h.pages)
		return b, err
	}
	if m.exists, err = read(h.bitmaps); err != nil {
		return 0, fmt.Errorf("first bitmap of the kdump file: %w", err)
	}
	if m.kept, err = read(h.bitmaps + half); err != nil {
		return 0, fmt.Errorf("second bitmap of the kdump file: %w", err)
	}
	// What is kept exists, whatever the first bitmap says.
	for w := uint64(0); w < uint64(len(m.kept)); w += 8 {
		if w*8%rankEvery == 0 {
			m.rank = append(m.rank, count)
		}
		k := m.kept.word(w)
		m.exists.or(w, k)
		count += uint64(bits.OnesCount64(k))
	}
	m.ranges = m.exists.ranges()
	if count == 0 {
		return 0, errors.New("the kdump file has no pages: it was not finished")
	}
	m.data = h.descs + count*descSize
	if m.data > m.src.Size() {
		return 0, fmt.Errorf("the kdump file was cut off in the descriptors of its %d pages, before the first page: %w", count, phys.ErrGone)
	}
	return count, nil
}

// index is the number of page pfn's descriptor.
func (m *Memory) index(pfn uint64) uint64 {
	return m.rank[pfn/rankEvery] + m.kept.count(pfn/rankEvery*rankEvery, pfn)
}

// Close closes the source.
func (m *Memory) Close() error { return m.src.Close() }

// Ranges implements [phys.Memory]: what the machine has, left out or not.
func (m *Memory) Ranges() []phys.Range { return m.ranges }

// CPUs are the processors' registers; see [note.CPUs].
func (m *Memory) CPUs() []note.CPU { return note.CPUs(m.notes) }

// Vmcoreinfo is the kernel's own note for crash-dump tools; nil if there is none.
func (m *Memory) Vmcoreinfo() []byte {
	if m.info != nil {
		return m.info
	}
	return note.Vmcoreinfo(m.notes)
}

// Packing is what the dump's pages are packed with: "zlib", "lzo", "snappy",
// "zstd", "not packed".
func (m *Memory) Packing() string { return m.packing }

// Unpacked is how many pages were unpacked so far: opening and looking at a guest
// takes a few of a large dump's.
func (m *Memory) Unpacked() uint64 { return m.unpacked.Load() }

// Level is makedumpfile's dump level: which kinds of pages were left out, 0 for
// none.
func (m *Memory) Level() uint32 { return m.level }

// ReadAt implements [phys.Memory].
func (m *Memory) ReadAt(p []byte, pa phys.Addr) (n int, err error) {
	for n < len(p) {
		at := pa + phys.Addr(n)
		in := uint64(at) % pageSize
		dst := p[n : n+int(min(uint64(len(p)-n), pageSize-in))]
		if err := m.readPage(dst, uint64(at)/pageSize, in); err != nil {
			return n, fmt.Errorf("read %d bytes at guest-physical %#x: %w", len(dst), uint64(at), err)
		}
		n += len(dst)
	}
	return n, nil
}

func (m *Memory) readPage(dst []byte, pfn, in uint64) error {
	switch {
	case !m.exists.has(pfn):
		return phys.ErrNotPresent
	case !m.kept.has(pfn):
		if !m.zeros {
			return ErrExcluded
		}
		clear(dst)
		return nil
	}
	// Pages that are the same share what they are unpacked from: the descriptor
	// and not the page is what the cache knows them by.
	d, err := m.descriptor(m.index(pfn))
	if err != nil {
		return err
	}
	if d.offset == m.zeroPage && d.offset != 0 {
		clear(dst)
		return nil
	}
	if m.lost > 0 && !m.there(d) {
		return ErrLost
	}
	return m.cache.ReadAt(dst, d.key(), in)
}

// Backed implements [phys.Prober]: what is left out or shares the page of zeros is
// not worth a look.
func (m *Memory) Backed(pa phys.Addr) bool {
	pfn := uint64(pa) / pageSize
	if !m.kept.has(pfn) {
		return false
	}
	d, err := m.descriptor(m.index(pfn))
	if err == nil && m.lost > 0 && !m.there(d) {
		return false
	}
	return err != nil || d.offset != m.zeroPage || d.offset == 0
}

// NextPopulated implements [phys.Populated].
func (m *Memory) NextPopulated(pa phys.Addr) (phys.Range, bool) {
	start, ok := m.kept.next(uint64(pa)/pageSize, true)
	if !ok {
		return phys.Range{}, false
	}
	end, ok := m.kept.next(start, false)
	if !ok {
		end = uint64(len(m.kept)) * 8
	}
	return phys.Range{Start: max(pa, phys.Addr(start*pageSize)), End: phys.Addr(end * pageSize)}, true
}
