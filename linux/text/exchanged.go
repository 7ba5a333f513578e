package text

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"sync"

	"github.com/outsight-vmi/outsight/kernel/image"
)

// A pointer to a function in the kernel's data is exchanged for another function by code, which has that function's
// address as an operand (of six to nine words that a guest under QEMU exchanges, all), or takes it from a table that has it, as
// the tracer of graphs does (register_ftrace_graph, 5.10). A function that is in no operand and no table anywhere was put there by nobody.

// copied reports whether a variable is copied from another as a whole, or by who is given its address: those
// of hypervisors are (init_hypervisor_platform, xen_start_kernel). Static calls take functions from tables of drivers
// (x86_pmu_static_call_update), and what traces functions from who asks.
func copied(symbol string) bool {
	switch symbol {
	case "pv_ops", "pv_time_ops", "pv_cpu_ops", "pv_irq_ops", "pv_mmu_ops", "pv_lock_ops", "smp_ops", "machine_ops", "x86_platform", "x86_msi":
		return true
	}
	return strings.HasPrefix(symbol, "__SCK__") || strings.HasPrefix(strings.TrimLeft(symbol, "_"), "ftrace_")
}

// exchanged reports whether the kernel does not put got, which is in its text, into a word itself. What is sealed is left
// out: while it starts, a kernel adapts itself to what it runs on there.
func (p *Pointers) exchanged(linked, got uint64, cpu int) bool {
	if p.ref.Image == nil || !p.named || cpu < 0 && p.isSealed(linked) {
		return false
	}
	if cpu < 0 {
		if name, _, ok := p.symbol(linked); !ok || copied(name) {
			return false
		}
	}
	return !p.ref.operands.have(p.ref.Image, got-p.offset, p.ref.listed)
}

// operands knows which addresses are operands of a kernel's instructions, or in its tables.
type operands struct {
	mu    sync.Mutex
	known map[uint64]bool
}

// maxOperands bounds what is kept.
const maxOperands = 1 << 12

// have reports whether an address, as linked, may be an operand of an instruction of the image: its last 32 bits, or the
// distance to it behind an opcode that loads an address; or is in a word of its data, but for the lists of where functions begin.
// Bytes that only look so count, too.
func (o *operands) have(im *image.Image, addr uint64, lists []span) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if have, ok := o.known[addr]; ok {
		return have
	}
	have := false
	for _, s := range im.Sections() {
		if code := im.Code(s); code != nil {
			have = operandIn(code, s.Addr, addr)
		} else {
			have = wordIn(im.Data(s), s.Addr, addr, lists)
		}
		if have {
			break
		}
	}
	if o.known == nil || len(o.known) >= maxOperands {
		o.known = map[uint64]bool{}
	}
	o.known[addr] = have
	return have
}

// operandIn is have for code that is linked at start.
func operandIn(code []byte, start, addr uint64) bool {
	if bytes.Contains(code, binary.LittleEndian.AppendUint32(nil, uint32(addr))) {
		return true
	}
	const lea, relative, mask = 0x8d, 0x05, 0xc7 // opcode, and mod and r/m of an operand that is relative to the next instruction
	for at := 0; ; at++ {
		i := bytes.IndexByte(code[at:], lea)
		if i < 0 || at+i+6 > len(code) {
			return false
		}
		at += i
		if code[at+1]&mask == relative && start+uint64(at)+6+uint64(int64(int32(binary.LittleEndian.Uint32(code[at+2:])))) == addr {
			return true
		}
	}
}

// wordIn reports whether data that is linked at start has an aligned word with the address, outside of lists.
func wordIn(data []byte, start, addr uint64, lists []span) bool {
	word := binary.LittleEndian.AppendUint64(nil, addr)
	for at := 0; ; at++ {
		i := bytes.Index(data[at:], word)
		if i < 0 {
			return false
		}
		at += i
		where := start + uint64(at)
		if where%8 == 0 && !slices.ContainsFunc(lists, func(l span) bool { return where >= l.start && where < l.end }) {
			return true
		}
	}
}

// listBounds are around the kernel's lists of functions that can be traced, may not be probed, and may be made to fail.
var listBounds = [][2]string{
	{"__start_mcount_loc", "__stop_mcount_loc"}, {"__start_kprobe_blacklist", "__stop_kprobe_blacklist"}, {"__start_error_injection_whitelist", "__stop_error_injection_whitelist"},
}
