package image

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Tables that are part of other sections lie between two symbols.
var tableSymbols = []string{
	"_text", "__start___jump_table", "__stop___jump_table", "__start_static_call_sites", "__stop_static_call_sites",
	"__start_static_call_tramp_key", "__stop_static_call_tramp_key", "__start_mcount_loc", "__stop_mcount_loc",
	"__static_call_text_start", "__static_call_text_end",
}

// between are the bytes between two symbols, with their address.
func (b *siteBuilder) between(symbols map[string]uint64, start, stop string, entry uint64) ([]byte, uint64, error) {
	from, ok1 := symbols[start]
	to, ok2 := symbols[stop]
	if !ok1 || !ok2 || from == to {
		return nil, 0, nil // this kernel has no such table
	}
	if to < from || (to-from)%entry != 0 || to-from > entry*maxSites {
		return nil, 0, fmt.Errorf("%w: %s at %#x and %s at %#x", ErrTable, start, from, stop, to)
	}
	table := b.im.linked(from, to-from)
	if table == nil {
		return nil, 0, fmt.Errorf("%w: %s at %#x: %w", ErrTable, start, from, ErrNotInImage)
	}
	return table, from, nil
}

// Lookup finds symbols by the image's own table, as linked.
func (im *Image) Lookup(names ...string) (map[string]uint64, error) {
	t, err := im.Symbols()
	if err != nil {
		return nil, err
	}
	found := t.Lookup(names...)
	at := make(map[string]uint64, len(found))
	text, _ := im.Section(".text")
	for name, s := range found {
		if !s.Percpu {
			at[name] = text.Addr + uint64(s.Rel)
		}
	}
	return at, nil
}

// bySymbols reads the tables that only symbols lead to.
func (b *siteBuilder) bySymbols() error {
	symbols, err := b.im.Lookup(tableSymbols...)
	if err != nil {
		return err
	}
	table, addr, err := b.between(symbols, "__start___jump_table", "__stop___jump_table", 16)
	if err != nil {
		return err
	}
	b.jumps(table, addr)
	if err := b.staticCalls(symbols); err != nil {
		return err
	}
	table, _, err = b.between(symbols, "__start_mcount_loc", "__stop_mcount_loc", 8)
	if err != nil {
		return err
	}
	b.fentries(table)
	return nil
}

// fentries reads __mcount_loc: the addresses of calls at functions' starts.
func (b *siteBuilder) fentries(table []byte) {
	for i := 0; i+8 <= len(table); i += 8 {
		b.add(binary.LittleEndian.Uint64(table[i:])-b.offset, 5, Fentry, 0)
	}
}

// jumps reads the jump table: two 32-bit distances and a 64-bit one, whose last two bits
// are flags (include/linux/jump_label.h).
func (b *siteBuilder) jumps(table []byte, addr uint64) {
	b.sites.Jumps = make([]JumpLabel, 0, len(table)/16)
	for i := 0; i+16 <= len(table) && i < 16*maxSites; i += 16 {
		key := binary.LittleEndian.Uint64(table[i+8:])
		j := JumpLabel{
			Code: rel(table, addr, i), Target: rel(table, addr, i+4),
			Key: addr + uint64(i) + 8 + key&^3, Branch: key&1 != 0,
		}
		n := 5
		// Two bytes where the distance allows, since 5.14 (ab3257042c26).
		if code := b.im.linked(j.Code, 2); code != nil && (code[0] == 0xeb || code[0] == 0x66 && code[1] == 0x90) {
			n = 2
		}
		b.sites.Jumps = append(b.sites.Jumps, j)
		b.add(j.Code, n, Jump, len(b.sites.Jumps)-1)
	}
}

// staticCalls reads the sites of static calls, and their trampolines.
func (b *siteBuilder) staticCalls(symbols map[string]uint64) error {
	table, addr, err := b.between(symbols, "__start_static_call_sites", "__stop_static_call_sites", 8)
	if err != nil {
		return err
	}
	trampolines := map[uint64]uint64{} // to the key
	b.calls(table, addr, trampolines)
	table, addr, err = b.between(symbols, "__start_static_call_tramp_key", "__stop_static_call_tramp_key", 8)
	if err != nil {
		return err
	}
	keysOf(table, addr, trampolines)
	if err := b.uncalled(symbols, trampolines); err != nil {
		return err
	}
	b.trampolines(trampolines)
	return nil
}

// calls reads .static_call_sites: pairs of 32-bit distances, with flags in the second
// (include/linux/static_call_types.h).
func (b *siteBuilder) calls(table []byte, addr uint64, trampolines map[uint64]uint64) {
	for i := 0; i+8 <= len(table) && i < 8*maxSites; i += 8 {
		key := rel(table, addr, i+4)
		c := Call{Addr: rel(table, addr, i), Key: key &^ 3, Tail: key&1 != 0}
		n := 5
		code := b.im.linked(c.Addr, 6)
		if code == nil {
			continue
		}
		if b.kernel != nil { // a module may know the trampoline alone (static_call_add_module)
			if key, ok := b.kernel.Key(c.Key); ok {
				c.Key = key
			}
		}
		target, size := branch(code, c.Addr)
		if size == 6 { // a conditional tail call (6.3)
			n = 6
		}
		if size > 0 {
			trampolines[target] = c.Key
		}
		b.sites.Calls = append(b.sites.Calls, c)
		b.add(c.Addr, n, StaticCall, len(b.sites.Calls)-1)
	}
}

// keysOf reads .static_call_tramp_key: trampolines with their keys.
func keysOf(table []byte, addr uint64, trampolines map[uint64]uint64) {
	for i := 0; i+8 <= len(table) && i < 8*maxSites; i += 8 {
		trampolines[rel(table, addr, i)] = rel(table, addr, i+4) &^ 3
	}
}

// trampolines adds those that are in the text.
func (b *siteBuilder) trampolines(all map[uint64]uint64) {
	for tramp, key := range all {
		code := b.im.linked(tramp, 5)
		if code == nil || code[0] != 0xe9 && code[0] != 0xc3 {
			continue // a function that was called directly, or the kernel's
		}
		b.sites.Calls = append(b.sites.Calls, Call{Addr: tramp, Key: key, Tail: true})
		b.add(tramp, 5, Trampoline, len(b.sites.Calls)-1)
	}
}

// trampolineSize is how far apart trampolines are (__ARCH_DEFINE_STATIC_CALL_TRAMP).
const trampolineSize = 8

// uncalled adds the trampolines that nothing calls and no module may: only their names
// lead to their keys.
func (b *siteBuilder) uncalled(symbols map[string]uint64, trampolines map[uint64]uint64) error {
	start, end := symbols["__static_call_text_start"], symbols["__static_call_text_end"]
	if start == 0 || end < start || end-start > trampolineSize*maxSites {
		return nil
	}
	table, err := b.im.Symbols()
	if err != nil {
		return err
	}
	keys := map[string]uint64{} // to the trampoline
	var names []string
	for at := start; at < end; at += trampolineSize {
		if _, known := trampolines[at]; known {
			continue
		}
		name, off, ok := table.At(int64(at - b.text.Addr))
		if name, tramp := strings.CutPrefix(name, "__SCT__"); ok && tramp && off == 0 {
			names = append(names, "__SCK__"+name)
			keys["__SCK__"+name] = at
		}
	}
	if len(names) == 0 {
		return nil
	}
	found, err := b.im.Lookup(names...)
	if err != nil {
		return err
	}
	for name, key := range found {
		trampolines[keys[name]] = key
	}
	return nil
}

// branch is where a direct call, jump or conditional jump at addr leads; size 0: it is
// none.
func branch(code []byte, addr uint64) (target uint64, size int) {
	switch {
	case code[0] == 0xe8 || code[0] == 0xe9:
		size = 5
	case code[0] == 0x0f && code[1]&0xf0 == 0x80:
		size = 6
	default:
		return 0, 0
	}
	return addr + uint64(size) + uint64(int64(int32(binary.LittleEndian.Uint32(code[size-4:])))), size
}
