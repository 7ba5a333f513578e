package text

import (
	"bytes"
	"encoding/binary"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/virt"
)

// natives are the instructions that stand for a call of pv_ops on bare hardware, and
// under hypervisors that emulate it (arch/x86/kernel/paravirt_patch.c until 5.11).
var natives = [][]byte{
	{0xfa},                               // cli
	{0xfb},                               // sti
	{0x9c, 0x58},                         // pushf; pop %rax
	{0x57, 0x9d},                         // push %rdi; popf
	{0x0f, 0x20, 0xd0},                   // mov %cr2,%rax
	{0x0f, 0x20, 0xd8},                   // mov %cr3,%rax
	{0x0f, 0x22, 0xdf},                   // mov %rdi,%cr3
	{0x0f, 0x09},                         // wbinvd
	{0x0f, 0x01, 0xf8, 0x48, 0x0f, 0x07}, // swapgs; sysretq
	{0x0f, 0x01, 0xf8},                   // swapgs
	{0xc6, 0x07, 0x00},                   // movb $0,(%rdi)
	{0x31, 0xc0},                         // xor %eax,%eax
	{0x48, 0x89, 0xf8},                   // mov %rdi,%rax
}

// paravirt checks a call through pv_ops: itself, the same call directly, a native
// instruction, or nothing if the function does nothing.
func (w *worker) paravirt(p *image.ParaCall, want, got []byte) string {
	t := w.t
	at := p.Addr + t.offset
	if w.same(got, at, want, at, true) || w.paraCall(want, got, at) {
		return ""
	}
	for _, n := range natives {
		if bytes.HasPrefix(got, n) && skipNops(got, len(n), false) == len(got) {
			return ""
		}
	}
	// Before 5.12 the call may have been written by the number of its pointer, from
	// another that was there when the kernel was built.
	if t.ref.names.pvOps != 0 {
		fn, err := t.s.Space.U64(virt.Addr(t.ref.names.pvOps + t.offset + 8*uint64(p.Type)))
		if to, ok := callTarget(got, at); err == nil && ok && t.state.calls(to, fn) && skipNops(got, 5, false) == len(got) {
			return ""
		}
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
	fn, err := w.t.s.Space.U64(virt.Addr(pointer))
	if err != nil {
		return false
	}
	names, off := &w.t.ref.names, w.t.offset
	if fn == 0 {
		fn = names.bug + off
	}
	if want[1] == 0x25 {
		to, ok := jumpTarget(got, at)
		return ok && to == fn
	}
	if to, ok := callTarget(got, at); ok && w.t.state.calls(to, fn) {
		return skipNops(got, 5, false) == len(got)
	}
	return names.nothing[fn-off] && skipNops(got, 0, false) == len(got)
}
