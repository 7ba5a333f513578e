package image

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Kind is for what the kernel patches a place of its text.
type Kind uint8

// The kinds of patch sites. Where one place is in several tables, the first here counts.
const (
	Jump        Kind = iota + 1 // __jump_table: a jump or a nop, as a static key says
	StaticCall                  // __static_call_sites: a call of a static call's function
	Trampoline                  // __static_call_tramp_key: a jump to a static call's function
	Fentry                      // __mcount_loc: a call at a function's start, for ftrace
	Runtime                     // runtime_*: a constant that is known only at boot
	Alternative                 // .altinstructions: other instructions for some processors
	Paravirt                    // .parainstructions (until 6.7): an indirect call of pv_ops
	Return                      // .return_sites: a return, or a jump to a return thunk
	Retpoline                   // .retpoline_sites: an indirect branch, or a thunk for it
	Endbr                       // .ibt_endbr_seal: an endbr64 that nothing branches to
	Lock                        // .smp_locks: a lock prefix
)

func (k Kind) String() string {
	names := [...]string{"", "jump label", "static call", "static call trampoline", "ftrace", "runtime constant", "alternative", "paravirt call", "return", "retpoline", "endbr", "lock prefix"}
	if int(k) < len(names) {
		return names[k]
	}
	return "unknown"
}

// Site is a place in the kernel's text that the kernel may patch.
type Site struct {
	Addr  uint64 // as linked
	Index uint32 // in the table of its kind, if that has one
	Len   uint8  // in bytes
	Kind  Kind
}

// End is the address behind the site.
func (s Site) End() uint64 { return s.Addr + uint64(s.Len) }

// AltInstr is an entry of .altinstructions: if the processor has (or, with Not, lacks) a
// feature, Len bytes at Addr are replaced by ReplLen bytes from Repl, and nops.
type AltInstr struct {
	Addr, Repl   uint64
	Feature      uint16 // X86_FEATURE_* (arch/x86/include/asm/cpufeatures.h)
	Flags        uint16
	Len, ReplLen uint8
}

// Flags of an [AltInstr]. Until 6.2 the first was bit 15 of the feature.
const (
	AltNot        = 1 << 0 // ALT_FLAG_NOT
	AltDirectCall = 1 << 1 // ALT_FLAG_DIRECT_CALL (6.8): of what pv_ops holds
)

// JumpLabel is an entry of the jump table: at Code is a jump to Target if the static key
// at Key is enabled, else a nop; with Branch the other way round.
type JumpLabel struct {
	Code, Target, Key uint64
	Branch            bool
}

// Call is a static call: at Addr is a call of, or with Tail a jump to, the function that
// the struct static_call_key at Key holds.
type Call struct {
	Addr, Key uint64
	Tail      bool
}

// RuntimeConst is a place of a constant that is set at boot: the eight bytes of a pointer, the
// four of a mask, or the one of a shift.
type RuntimeConst struct {
	Addr uint64
	Name string // of the variable
	Size uint8  // in bytes
}

// ParaCall is an entry of .parainstructions: a call through the pointer number Type of
// pv_ops.
type ParaCall struct {
	Addr uint64
	Type uint8
	Len  uint8
}

// Sites are the patch sites of an image's .text. All tables are in the order of their
// addresses.
type Sites struct {
	All      []Site
	Alts     []AltInstr
	Jumps    []JumpLabel
	Calls    []Call // of StaticCall and Trampoline
	Runtimes []RuntimeConst
	Paras    []ParaCall

	altSize int // of an entry of .altinstructions
}

// ErrTable says that a table of patch sites contradicts itself.
var ErrTable = errors.New("table of patch sites in the boot image is damaged")

// maxSites bounds the patch sites. Kernels have 150 to 300 thousand.
const maxSites = 4 << 20

// Sites reads the tables of patch sites. It takes some ten milliseconds; keep the answer.
func (im *Image) Sites() (*Sites, error) {
	text, _ := im.Section(".text")
	b := &siteBuilder{im: im, text: text, sites: &Sites{}}
	return b.read(b.alternatives, b.offsets, b.locks, b.paravirt, b.runtime, b.bySymbols)
}

func (b *siteBuilder) read(tables ...func() error) (*Sites, error) {
	b.sites.All = make([]Site, 0, b.atMost())
	for _, read := range tables {
		if err := read(); err != nil {
			return nil, err
		}
	}
	b.sites.All = sortSites(b.sites.All, b.text)
	return b.sites, nil
}

// Before is the order of sites: by address, and what encloses others comes first.
func (s Site) Before(o Site) bool {
	switch {
	case s.Addr != o.Addr:
		return s.Addr < o.Addr
	case s.Len != o.Len:
		return s.Len > o.Len
	}
	return s.Kind < o.Kind
}

// sortSites sorts sites of text. There are some tens in each page, so that they are dealt
// to the pages first: a comparing sort of all of them takes as long as everything else.
func sortSites(all []Site, text Section) []Site {
	const page = 4096
	ends := make([]int, text.Size/page+2)
	for _, s := range all {
		ends[(s.Addr-text.Addr)/page+1]++
	}
	for i := 1; i < len(ends); i++ {
		ends[i] += ends[i-1]
	}
	sorted := make([]Site, len(all))
	for _, s := range all {
		p := (s.Addr - text.Addr) / page
		sorted[ends[p]] = s
		ends[p]++
	}
	start := 0
	for _, end := range ends[:len(ends)-1] {
		slices.SortFunc(sorted[start:end], func(a, c Site) int {
			switch {
			case a.Before(c):
				return -1
			case c.Before(a):
				return 1
			}
			return 0
		})
		start = end
	}
	return sorted
}

// atMost is about how many sites there are, if not more.
func (b *siteBuilder) atMost() int {
	n := int(b.text.Size>>16) * 320 // functions, jump labels and static calls
	for name, size := range map[string]int{".return_sites": 4, ".retpoline_sites": 4, ".ibt_endbr_seal": 4, ".smp_locks": 4, ".parainstructions": 16, ".altinstructions": 12} {
		if s, ok := b.im.Section(name); ok && s.Size <= maxImage {
			n += int(s.Size) / size
		}
	}
	return min(n, maxSites)
}

type siteBuilder struct {
	im    *Image
	text  Section
	sites *Sites
	// Of a module: what it is linked with, and by how much absolute addresses in its tables are
	// larger than those of the image.
	kernel *Sites
	offset uint64
	data   bool // the code is not in the kernel's text: that of a vDSO
}

// add notes a site, if it is in .text: that of .init.text is gone when the kernel runs.
func (b *siteBuilder) add(addr uint64, n int, k Kind, index int) {
	if addr < b.text.Addr || addr >= b.text.End() || uint64(n) > b.text.End()-addr || len(b.sites.All) >= maxSites {
		return
	}
	b.sites.All = append(b.sites.All, Site{Addr: addr, Len: uint8(n), Kind: k, Index: uint32(index)})
}

// section are the bytes of a table, with its address; none if the image has no such table.
// That a table is there and cannot be read is an error: without it, what the kernel patches
// by it would be taken for an intruder's.
func (b *siteBuilder) section(name string) (table []byte, addr uint64, err error) {
	s, ok := b.im.Section(name)
	if !ok || s.Size == 0 {
		return nil, 0, nil
	}
	if s.Size > maxImage {
		return nil, 0, fmt.Errorf("%w: %s of %d bytes", ErrTable, name, s.Size)
	}
	table, err = b.im.table(s)
	return table, s.Addr, err
}

// rel is where the 32-bit distance at offset i of a table at addr leads.
func rel(table []byte, addr uint64, i int) uint64 {
	return addr + uint64(i) + uint64(int64(int32(binary.LittleEndian.Uint32(table[i:]))))
}

// alternatives reads .altinstructions. struct alt_instr has a byte of padding length until
// 5.12 (23c1ad538f4f), a feature of 16 bits until 6.3, and flags beside it since
// (5d1dd961e743): whichever makes every entry lead into the image is this kernel's.
func (b *siteBuilder) alternatives() error {
	table, addr, err := b.section(".altinstructions")
	if err != nil || len(table) == 0 {
		return err
	}
	return b.alternativesOf(table, addr)
}

func (b *siteBuilder) alternativesOf(table []byte, addr uint64) error {
	sizes := []int{14, 12, 13}
	if b.kernel != nil { // a module has too few to decide by
		sizes = []int{b.kernel.altSize}
	}
	for _, size := range sizes {
		alts, ok := b.altsOf(table, addr, size)
		if !ok {
			continue
		}
		slices.SortStableFunc(alts, func(a, c AltInstr) int { return cmp.Compare(a.Addr, c.Addr) })
		b.sites.Alts, b.sites.altSize = alts, size
		for i := 0; i < len(alts); {
			first, n := i, uint8(0)
			for ; i < len(alts) && alts[i].Addr == alts[first].Addr; i++ {
				n = max(n, alts[i].Len) // the kernel patches the largest
			}
			b.add(alts[first].Addr, int(n), Alternative, first)
		}
		return nil
	}
	return fmt.Errorf("%w: .altinstructions of %d bytes has no known form", ErrTable, len(table))
}

func (b *siteBuilder) altsOf(table []byte, addr uint64, size int) ([]AltInstr, bool) {
	if size == 0 || len(table)%size != 0 || len(table)/size > maxSites {
		return nil, false
	}
	alts := make([]AltInstr, 0, len(table)/size)
	for i := 0; i < len(table); i += size {
		e := table[i:]
		a := AltInstr{Addr: rel(table, addr, i), Repl: rel(table, addr, i+4), Feature: binary.LittleEndian.Uint16(e[8:])}
		if size == 14 {
			a.Flags, a.Len, a.ReplLen = binary.LittleEndian.Uint16(e[10:]), e[12], e[13]
		} else {
			a.Len, a.ReplLen = e[10], e[11]
			a.Flags, a.Feature = a.Feature>>15, a.Feature&0x7fff
		}
		s, ok := b.im.at(a.Addr, uint64(a.Len))
		if b.kernel != nil && !b.data && (!ok || !s.exec) {
			continue // of a module's .init.text
		}
		if !ok || !s.exec && !b.data || a.Len == 0 || a.ReplLen > a.Len || a.Feature >= 64*32 || a.Flags > 15 {
			return nil, false
		}
		if r, ok := b.im.at(a.Repl, uint64(a.ReplLen)); a.ReplLen > 0 && (!ok || !r.exec && !b.data) {
			return nil, false
		}
		alts = append(alts, a)
	}
	return alts, true
}

// offsets reads the tables that are nothing but distances to sites. .cfi_sites and
// .call_sites hold what only other builds and options patch.
func (b *siteBuilder) offsets() error {
	for _, t := range []struct {
		name string
		kind Kind
	}{{".return_sites", Return}, {".retpoline_sites", Retpoline}, {".ibt_endbr_seal", Endbr}} {
		table, addr, err := b.section(t.name)
		if err != nil {
			return err
		}
		if len(table) > 4*maxSites {
			return fmt.Errorf("%w: %s of %d bytes", ErrTable, t.name, len(table))
		}
		for i := 0; i+4 <= len(table); i += 4 {
			at := rel(table, addr, i)
			code := b.im.linked(at, 4)
			if code == nil {
				continue
			}
			n := 4 // of endbr64
			switch {
			case t.kind == Endbr:
			case code[0] == 0xff: // a compiler's own indirect branch: never replaced by less
				n = 2
			case code[0] == 0xc3:
				n = 1
			case code[0] == 0x2e || code[0] == 0x0f || code[0] == 0x41: // "cs call thunk", "jcc thunk"
				n = 6
			default:
				n = 5
			}
			b.add(at, n, t.kind, 0)
		}
	}
	return nil
}

// CallSites are the direct calls in the text, in the order of their addresses
// (.call_sites, 6.2). The kernel patches them only with call depth tracking.
func (im *Image) CallSites() []uint64 {
	b := siteBuilder{im: im}
	table, addr, _ := b.section(".call_sites") // without it every counted call differs
	sites := make([]uint64, 0, min(len(table)/4, maxSites))
	for i := 0; i+4 <= len(table) && len(sites) < maxSites; i += 4 {
		sites = append(sites, rel(table, addr, i))
	}
	slices.Sort(sites)
	return sites
}

func (b *siteBuilder) locks() error {
	table, addr, err := b.section(".smp_locks")
	if err != nil {
		return err
	}
	if len(table) > 4*maxSites {
		return fmt.Errorf("%w: .smp_locks of %d bytes", ErrTable, len(table))
	}
	for i := 0; i+4 <= len(table); i += 4 {
		// The kernel leaves alone what is not a lock prefix: another prefix may stand before one.
		at := rel(table, addr, i)
		if at < b.text.Addr || at >= b.text.End() {
			continue
		}
		code := b.im.linked(at, 1)
		if code == nil {
			return fmt.Errorf("%w: text at %#x: %w", ErrTable, at, ErrNotInImage)
		}
		if code[0] == 0xf0 {
			b.add(at, 1, Lock, 0)
		}
	}
	return nil
}

// paravirt reads .parainstructions: a 64-bit address, the number of a pointer, the length.
func (b *siteBuilder) paravirt() error {
	table, _, err := b.section(".parainstructions")
	if err != nil {
		return err
	}
	if len(table) > 16*maxSites {
		return fmt.Errorf("%w: .parainstructions of %d bytes", ErrTable, len(table))
	}
	for i := 0; i+10 <= len(table); i += 16 {
		p := ParaCall{Addr: binary.LittleEndian.Uint64(table[i:]) - b.offset, Type: table[i+8], Len: table[i+9]}
		b.sites.Paras = append(b.sites.Paras, p)
		b.add(p.Addr, int(p.Len), Paravirt, len(b.sites.Paras)-1)
	}
	return nil
}

// RuntimeSection takes the name of a section of places of one constant apart, into the name of its variable
// and its size in bytes; 0 for other sections. Pointers and shifts are of 6.11 (include/asm-generic/runtime-const.h), masks of 7.3.
func RuntimeSection(section string) (variable string, size uint8) {
	for _, kind := range []struct {
		prefix string
		size   uint8
	}{{"runtime_ptr_", 8}, {"runtime_mask_", 4}, {"runtime_shift_", 1}} {
		if v, ok := strings.CutPrefix(section, kind.prefix); ok {
			return v, kind.size
		}
	}
	return "", 0
}

// runtime reads the sections of runtime constants: distances to the constant in an instruction.
func (b *siteBuilder) runtime() error {
	for _, s := range b.im.sections {
		name, size := RuntimeSection(s.Name)
		if size == 0 {
			continue
		}
		table, err := b.im.table(s)
		if err != nil {
			return err
		}
		for i := 0; i+4 <= len(table) && i < 4*maxSites; i += 4 {
			r := RuntimeConst{Addr: rel(table, s.Addr, i), Name: name, Size: size}
			b.sites.Runtimes = append(b.sites.Runtimes, r)
			b.add(r.Addr, int(size), Runtime, len(b.sites.Runtimes)-1)
		}
	}
	return nil
}
