package text

import (
	"bytes"
	"encoding/binary"
	"strings"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/virt"
)

// natives are functions of pv_ops for which the kernel writes instructions instead of a
// call (arch/x86/kernel/paravirt_patch.c, until 5.11). Later they are alternatives.
var natives = map[string][]byte{
	"native_irq_disable":        {0xfa},             // cli
	"native_irq_enable":         {0xfb},             // sti
	"native_save_fl":            {0x9c, 0x58},       // pushf; pop %rax
	"native_restore_fl":         {0x57, 0x9d},       // push %rdi; popf
	"native_read_cr2":           {0x0f, 0x20, 0xd0}, // mov %cr2,%rax
	"native_read_cr3":           {0x0f, 0x20, 0xd8}, // mov %cr3,%rax
	"native_write_cr3":          {0x0f, 0x22, 0xdf}, // mov %rdi,%cr3
	"native_wbinvd":             {0x0f, 0x09},
	"native_usergs_sysret64":    {0x0f, 0x01, 0xf8, 0x48, 0x0f, 0x07}, // swapgs; sysretq
	"native_swapgs":             {0x0f, 0x01, 0xf8},
	"native_queued_spin_unlock": {0xc6, 0x07, 0x00}, // movb $0,(%rdi)
	"native_vcpu_is_preempted":  {0x31, 0xc0},       // xor %eax,%eax
	"_paravirt_ident_64":        {0x48, 0x89, 0xf8}, // mov %rdi,%rax
}

// readParavirt reads the pointers of pv_ops that calls go through.
func (st *state) readParavirt() {
	ref := st.t.ref
	clear(st.pointers[:])
	clear(st.natives[:])
	if len(ref.sites.Paras) == 0 || ref.names.pvOps == 0 {
		return
	}
	table, err := ref.Image.Symbols()
	if err != nil {
		return
	}
	for p := range st.t.paravirtCalls() {
		if st.pointers[p.Type] != 0 {
			continue
		}
		fn, err := st.t.s.Space.U64(virt.Addr(ref.names.pvOps + st.t.offset + 8*uint64(p.Type)))
		if err != nil || fn == 0 {
			continue
		}
		st.pointers[p.Type] = fn
		// By its address, since inline functions have copies of one name.
		if name, off, ok := table.At(int64(fn - st.t.offset - ref.start)); ok && off == 0 {
			name = strings.TrimPrefix(strings.TrimPrefix(name, "__raw_callee_save_"), "__")
			st.natives[p.Type] = natives[name]
		}
	}
}

// paravirt checks a call through pv_ops: itself, the same call directly, a native
// instruction, or nothing if the function does nothing.
func (w *worker) paravirt(p *image.ParaCall, want, got []byte) string {
	t := w.t
	at := p.Addr + t.offset
	if w.same(got, at, want, at, true) || w.paraCall(want, got, at) {
		return ""
	}
	// The function is known by the number of its pointer too: before 5.12 that of the
	// instruction may be another's.
	fn := t.state.pointers[p.Type]
	if to, ok := callTarget(got, at); ok && fn != 0 && t.state.calls(to, fn) && t.state.kernelFunction(fn) && skipNops(got, 5, false) == len(got) {
		return ""
	}
	if n := t.state.natives[p.Type]; n != nil && bytes.HasPrefix(got, n) && skipNops(got, len(n), false) == len(got) {
		return ""
	}
	return "neither the call through pv_ops nor what replaces it"
}

// paraCall reports whether got is what "call *pointer" or "jmp *pointer" of want becomes:
// a direct one to what the pointer holds now, or nothing if that does nothing.
func (w *worker) paraCall(want, got []byte, at uint64) bool {
	var pointer uint64
	switch {
	case len(want) >= 6 && want[0] == 0xff && (want[1] == 0x15 || want[1] == 0x25):
		pointer = at + 6 + uint64(int64(int32(binary.LittleEndian.Uint32(want[2:]))))
	case len(want) >= 7 && want[0] == 0xff && want[1] == 0x14 && want[2] == 0x25:
		pointer = uint64(int64(int32(binary.LittleEndian.Uint32(want[3:]))))
	default:
		return false
	}
	fn, err := w.u64(virt.Addr(pointer))
	if err != nil {
		return false
	}
	names, off := &w.t.ref.names, w.t.offset
	if fn == 0 {
		fn = names.bug + off
	}
	if want[1] == 0x25 {
		to, ok := jumpTarget(got, at)
		return ok && to == fn && w.t.state.kernelFunction(fn)
	}
	if to, ok := callTarget(got, at); ok && w.t.state.calls(to, fn) && w.t.state.kernelFunction(fn) {
		return skipNops(got, 5, false) == len(got)
	}
	return names.nothing[fn-off] && skipNops(got, 0, false) == len(got)
}
