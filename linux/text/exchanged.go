package text

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// A pointer to a function in the kernel's data is exchanged for another function by code, which has that function's
// address as an operand (of six to nine words that a guest under QEMU exchanges, all), or takes it from a table that has it, as
// register_ftrace_graph does up to 6.10, and what a compiler made of a switch (select_trace_function). That a module has the kernel
// put an exported function there is not excluded.

// copied reports whether a variable is known to get functions from other structures: those of hypervisors and platforms are copied
// from tables, as a whole or field by field (init_hypervisor_platform, xen_start_kernel), static calls take functions from tables of
// drivers (x86_pmu_static_call_update), and function tracing takes them from who asks for it (register_ftrace_graph, ftrace_init_array_ops).
func copied(symbol string) bool {
	switch symbol {
	case "pv_ops", "smp_ops", "machine_ops", "x86_platform", "x86_msi", "global_ops", "graph_ops":
		return true
	}
	return strings.HasPrefix(symbol, "__SCK__") || strings.HasPrefix(symbol, "ftrace_") || strings.HasPrefix(symbol, "__ftrace_")
}

// exchanged reports whether got, which is in the kernel's text, is in no instruction and no table of the kernel. What is
// sealed is left out: while it starts, a kernel adapts itself to what it runs on there.
func (p *Pointers) exchanged(linked, got uint64, cpu int) bool {
	if p.ref.Image == nil || !p.named || p.unloaded != nil || cpu < 0 && p.isSealed(linked) {
		return false
	}
	if cpu < 0 {
		if name, _, ok := p.symbol(linked); !ok || copied(name) {
			return false
		}
	}
	o, err := p.ref.operands()
	if err != nil {
		p.unloaded = fmt.Errorf("functions that the kernel itself exchanges: %w", err)
		return false
	}
	return !o.has(got - p.offset)
}

// operands are the addresses in a kernel's text that are operands of its instructions, or in its tables: one bit for each byte of the text.
type operands struct {
	start, size uint64
	bits        []uint64
}

func newOperands(start, end uint64) *operands {
	return &operands{start: start, size: end - start, bits: make([]uint64, (end-start+63)/64)}
}

// has reports whether an instruction or a table may have an address, as linked.
func (o *operands) has(addr uint64) bool {
	i := addr - o.start
	return i < o.size && o.bits[i/64]&(1<<(i%64)) != 0
}

func (o *operands) add(addr uint64) {
	if i := addr - o.start; i < o.size {
		o.bits[i/64] |= 1 << (i % 64)
	}
}

// addCode adds what instructions in code that is linked at start have as operands: 32 bits that are the end of an
// address, or the distance to it behind an opcode that loads an address. Bytes that only look so count, too.
func (o *operands) addCode(code []byte, start uint64) {
	const lea, relative, mask = 0x8d, 0x05, 0xc7 // opcode, and mod and r/m of an operand that is relative to the next instruction
	low, size, bits := uint32(o.start), uint32(o.size), o.bits
	absolute := func(v uint32) {
		if v -= low; v < size {
			bits[v/64] |= 1 << (v % 64)
		}
	}
	i := 0
	for ; i+8 <= len(code); i += 4 {
		w := binary.LittleEndian.Uint64(code[i:])
		absolute(uint32(w))
		absolute(uint32(w >> 8))
		absolute(uint32(w >> 16))
		absolute(uint32(w >> 24))
	}
	for ; i+4 <= len(code); i++ {
		absolute(binary.LittleEndian.Uint32(code[i:]))
	}
	for at := 0; ; at++ {
		i := bytes.IndexByte(code[at:], lea)
		if i < 0 || at+i+6 > len(code) {
			return
		}
		if at += i; code[at+1]&mask == relative {
			o.add(start + uint64(at) + 6 + uint64(int64(int32(binary.LittleEndian.Uint32(code[at+2:])))))
		}
	}
}

// findOperands looks through an image once, some ten milliseconds.
func (r *Reference) findOperands() (*operands, error) {
	o := newOperands(r.start, r.end)
	for _, s := range r.Image.Sections() {
		if !r.Image.Executable(s) {
			continue
		}
		code := r.Image.Code(s)
		if uint64(len(code)) < s.Size {
			return nil, fmt.Errorf("code of section %s of the boot image at %#x cannot be read", s.Name, s.Addr)
		}
		o.addCode(code, s.Addr)
	}
	var names []string
	for _, b := range listBounds {
		names = append(names, b[:]...)
	}
	at, err := r.Image.Lookup(names...)
	if err != nil {
		return nil, err
	}
	for _, s := range r.Image.Sections() {
		if r.Image.Executable(s) {
			continue
		}
		for word, target := range r.Image.TextWords(s) {
			if !slices.ContainsFunc(listBounds, func(b [2]string) bool { return word >= at[b[0]] && word < at[b[1]] }) {
				o.add(target)
			}
		}
	}
	return o, nil
}

// listBounds are around the kernel's lists of functions that can be traced, may not be probed, and may be made to fail.
var listBounds = [][2]string{
	{"__start_mcount_loc", "__stop_mcount_loc"}, {"__start_kprobe_blacklist", "__stop_kprobe_blacklist"}, {"__start_error_injection_whitelist", "__stop_error_injection_whitelist"},
}
